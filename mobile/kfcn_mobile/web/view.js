// The picture with what was found in it: tints, outlines, names; and what lies at a point.

const OUTLINE = 1.5; // pixels of the map
const SMALLEST_NAMED = 0.012; // share of the picture
const MOST_NAMES = 12;

/** Shows one picture and its regions in `#frame`. */
export class View {
  /** @param {(label: number|null) => void} onLight called with the class under the pointer. */
  constructor(frame, onLight) {
    const inside = (id) => frame.querySelector(`#${id}`);
    Object.assign(this, { frame, onLight, opacity: 0.5, lit: null, kept: null, shown: null });
    [this.picture, this.overlay, this.names, this.tip] = ['picture', 'overlay', 'names', 'tip'].map(inside);
    this.picture.addEventListener('pointerdown', ({ pointerType }) => { this.touch = pointerType === 'touch'; });
    this.picture.addEventListener('pointermove', (event) => this.point(event));
    this.picture.addEventListener('pointerleave', () => this.leave());
    this.picture.addEventListener('click', (event) => this.click(event));
    new ResizeObserver(() => this.placeNames()).observe(frame);
  }

  /** Draws a picture without regions. @param source what `drawImage` takes. */
  show(source, width, height) {
    Object.assign(this.picture, { width, height });
    this.picture.getContext('2d').drawImage(source, 0, 0, width, height);
    this.frame.style.setProperty('--wide', width / height);
    this.frame.classList.remove('empty', 'some');
    this.overlay.getContext('2d').clearRect(0, 0, this.overlay.width, this.overlay.height);
    this.names.replaceChildren();
    this.tip.hidden = true;
    this.shown = null;
  }

  /**
   * Lays regions over the picture that is shown.
   * @param {object} result of the worker; @param {string[]} classes; @param {number[][]} colours.
   */
  lay({ map, regions, area }, classes, colours) {
    const { width, height } = this.picture;
    const total = area.width * area.height;
    const edge = outlines(map, width, height, Math.max(1, Math.round((OUTLINE * width) / 1000)));
    this.shown = { map, edge, regions, area, classes, colours, total };
    Object.assign(this.overlay, { width, height });
    this.image = this.overlay.getContext('2d').createImageData(width, height);
    this.frame.classList.add('some');
    this.draw();
    this.nameRegions();
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.draw();
  }

  /** Lights up a class by its number, until `null`. */
  lightClass(label) {
    this.light(label === null ? null : (region) => region.label === label);
  }

  light(test) {
    this.lit = test;
    this.draw();
  }

  draw() {
    if (!this.shown) return;
    const { map, edge, regions, colours } = this.shown;
    const inner = new Uint32Array(regions.length);
    const outer = new Uint32Array(regions.length);
    const base = this.opacity;
    for (const [id, region] of regions.entries()) {
      const colour = id ? colours[region.label] : [0, 0, 0];
      const bright = colour.map((value) => Math.round(value + 0.45 * (255 - value)));
      if (!this.lit) {
        inner[id] = id ? pixel(colour, base) : 0;
        outer[id] = id ? pixel(bright, base && Math.min(1, 0.55 + base)) : 0;
      } else if (id && this.lit(region)) {
        inner[id] = pixel(colour, 0.22);
        outer[id] = pixel(bright, 1);
      } else {
        // What is not meant steps back into the dark.
        inner[id] = outer[id] = pixel([10, 12, 16], 0.6);
      }
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    for (let at = 0; at < pixels.length; ++at) {
      pixels[at] = edge[at] ? outer[map[at]] : inner[map[at]];
    }
    this.overlay.getContext('2d').putImageData(this.image, 0, 0);
    this.names.hidden = Boolean(this.lit) || base === 0;
  }

  /** Names the large regions where the largest disc fits into them, the largest first. */
  nameRegions() {
    const { regions, area, classes, colours, total } = this.shown;
    const large = regions.slice(1).filter(({ count }) => count >= SMALLEST_NAMED * total);
    large.sort((a, b) => b.count - a.count);
    this.names.replaceChildren(...large.slice(0, MOST_NAMES).map((region) => {
      const name = document.createElement('span');
      name.className = 'name';
      name.textContent = classes[region.label];
      name.style.setProperty('--colour', `rgb(${colours[region.label].join(' ')})`);
      name.style.left = `${(100 * (region.x + 0.5)) / area.width}%`;
      name.style.top = `${(100 * (region.y + 0.5)) / area.height}%`;
      return name;
    }));
    this.placeNames();
  }

  /** Hides names that would lie on another one or out of the frame. */
  placeNames() {
    const frame = this.frame.getBoundingClientRect();
    const taken = [];
    for (const name of this.names.children) {
      name.style.visibility = '';
      const box = name.getBoundingClientRect();
      const outside = box.left < frame.left || box.right > frame.right;
      const meets = (other) => box.left < other.right && other.left < box.right
        && box.top < other.bottom && other.top < box.bottom;
      if (outside || taken.some(meets)) name.style.visibility = 'hidden';
      else taken.push(box);
    }
  }

  /** The region under the pointer; 0 is background. */
  at(event) {
    const box = this.picture.getBoundingClientRect();
    const { width, height } = this.picture;
    const x = Math.floor(((event.clientX - box.left) * width) / box.width);
    const y = Math.floor(((event.clientY - box.top) * height) / box.height);
    const inside = x >= 0 && y >= 0 && x < width && y < height;
    return inside && this.shown ? this.shown.map[y * width + x] : 0;
  }

  point(event) {
    if (!this.shown || event.pointerType === 'touch') return;
    this.lightRegion(this.at(event), event);
  }

  lightRegion(id, event) {
    const region = this.shown.regions[id];
    this.tip.hidden = !id;
    if (id !== this.pointed) {
      this.pointed = id;
      this.light(id ? (one) => one === region : this.kept);
      this.onLight(id ? region.label : null);
    }
    if (!id) return;
    const { classes, colours, total } = this.shown;
    this.tip.textContent = `${classes[region.label]} ${percent(region.count / total)}`;
    this.tip.style.setProperty('--colour', `rgb(${colours[region.label].join(' ')})`);
    const frame = this.frame.getBoundingClientRect();
    const box = this.tip.getBoundingClientRect();
    const left = event.clientX - frame.left - box.width / 2;
    const above = event.clientY - frame.top - box.height - 14;
    const top = above < 4 ? event.clientY - frame.top + 20 : above;
    this.tip.style.left = `${Math.max(4, Math.min(frame.width - box.width - 4, left))}px`;
    this.tip.style.top = `${Math.max(4, Math.min(frame.height - box.height - 4, top))}px`;
  }

  leave() {
    this.tip.hidden = true;
    if (!this.pointed) return;
    this.pointed = 0;
    this.light(this.kept);
    this.onLight(null);
  }

  /** A tap lights up what it meets, and the next one, or one beside it, ends that. */
  click(event) {
    if (!this.shown) return;
    const id = this.at(event);
    if (!this.touch) return;
    if (id && id !== this.pointed) this.lightRegion(id, event);
    else this.leave();
  }
}

/** Text of a share. */
export function percent(share) {
  const value = 100 * share;
  return value < 0.1 ? '< 0.1 %' : `${value.toFixed(1)} %`;
}

function pixel([red, green, blue], opacity) {
  // Little-endian RGBA, as every processor that runs a browser has it.
  return ((Math.round(255 * opacity) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** The pixels of each region that are within `reach` of another one. */
function outlines(map, width, height, reach) {
  const edge = new Uint8Array(map.length);
  for (let y = 0, at = 0; y < height; ++y) {
    for (let x = 0; x < width; ++x, ++at) {
      const id = map[at];
      if (
        id && ((x >= reach && map[at - reach] !== id) || (x < width - reach && map[at + reach] !== id)
          || (y >= reach && map[at - reach * width] !== id)
          || (y < height - reach && map[at + reach * width] !== id))
      ) edge[at] = 1;
    }
  }
  return edge;
}
