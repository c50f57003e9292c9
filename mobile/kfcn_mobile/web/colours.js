// The colours of a net's classes on a photograph.

const LEAST_LIGHTNESS = 0.66;
const MOST_LIGHTNESS = 0.86;
const LEAST_CHROMA = 0.13;
const APART = 0.09; // Euclidean, in OKLab: colours that are nearer look alike

// As `kfcn.labels.is_background`.
const BACKGROUND = /^_*(background|void|unlabell?ed|unknown)_*$/i;

/** The classes that are no objects: there the photograph is left as it is. */
export function backgroundOf(classes) {
  return classes.flatMap((name, label) => (BACKGROUND.test(name.trim()) ? [label] : []));
}

/**
 * Colours of the palette's hues, light and strong enough to be seen on a photograph and told from
 * one another: palettes made for label maps begin with black and dark red.
 * @param {number[][]} palette RGB of each class; @returns {number[][]} RGB.
 */
export function shownColours(palette) {
  const chosen = [];
  for (const [label, colour] of palette.entries()) {
    let [lightness, chroma, hue] = toOklch(colour);
    // Grey has no hue: one is chosen, the same for the same class.
    if (chroma < 0.03) hue = 2.4 * label;
    lightness = Math.min(MOST_LIGHTNESS, Math.max(LEAST_LIGHTNESS, lightness));
    chroma = Math.max(LEAST_CHROMA, chroma);
    let best = null;
    for (let turn = 0; turn < 24; ++turn) {
      const other = lightness - 0.08 * (turn % 3 === 1) + 0.08 * (turn % 3 === 2);
      const rgb = fromOklch(other, chroma, hue + turn * 0.7);
      const distance = Math.min(Infinity, ...chosen.map((one) => difference(one, rgb)));
      if (!best || distance > best.distance) best = { rgb, distance };
      if (distance > APART) break;
    }
    chosen.push(best.rgb);
  }
  return chosen;
}

function difference(a, b) {
  const [p, q] = [toOklab(a), toOklab(b)];
  return Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]);
}

function toOklch(rgb) {
  const [lightness, a, b] = toOklab(rgb);
  return [lightness, Math.hypot(a, b), Math.atan2(b, a)];
}

// OKLab: Ottosson, "A perceptual color space for image processing", 2020.
function toOklab(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const v = value / 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromOklch(lightness, chroma, hue) {
  const a = chroma * Math.cos(hue);
  const b = chroma * Math.sin(hue);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((v) => {
    const encoded = v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, encoded)));
  });
}
