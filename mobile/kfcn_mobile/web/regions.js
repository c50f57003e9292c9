// The regions of a label map: its connected parts, where their names fit, and smooth edges.

/**
 * Finds the connected parts (over edges) of one class each.
 * @param {Uint8Array} labels of the net's input, rows of `stride` pixels.
 * @param {{x, y, width, height}} area the rectangle that shows the picture.
 * @param {Set<number>} background classes that are no objects: all of them are region 0.
 * @returns {{map: Uint16Array, regions: object[]}} the region of each pixel of the area; of each
 *   region `label`, `count` (pixels), and `x`, `y`, `radius`: the largest disc in it, in pixels.
 */
export function findRegions(labels, stride, area, background) {
  const { width, height } = area;
  const size = width * height;
  const own = new Uint8Array(size);
  for (let y = 0; y < height; ++y) {
    const from = (area.y + y) * stride + area.x;
    own.set(labels.subarray(from, from + width), y * width);
  }
  const map = new Uint16Array(size);
  const seen = new Uint8Array(size);
  const stack = new Int32Array(size);
  const regions = [{ label: -1, count: 0, x: 0, y: 0, radius: 0 }];
  for (let start = 0; start < size; ++start) {
    if (seen[start]) continue;
    const label = own[start];
    const outside = background.has(label);
    // More parts than the map can number are noise: the rest stays background.
    const id = outside || regions.length > 65535 ? 0 : regions.length;
    if (id) regions.push({ label, count: 0, x: 0, y: 0, radius: 0 });
    let top = 0;
    stack[top++] = start;
    seen[start] = 1;
    while (top) {
      const at = stack[--top];
      map[at] = id;
      ++regions[id].count;
      const x = at % width;
      if (x > 0) visit(at - 1);
      if (x < width - 1) visit(at + 1);
      if (at >= width) visit(at - width);
      if (at < size - width) visit(at + width);
    }
    function visit(next) {
      if (!seen[next] && own[next] === label) {
        seen[next] = 1;
        stack[top++] = next;
      }
    }
  }
  findDiscs(map, width, height, regions);
  return { map, regions };
}

/** The largest disc in each region, by distances to the nearest pixel of another one (3-4 chamfer). */
function findDiscs(map, width, height, regions) {
  const far = new Uint16Array(map.length);
  const step = (at, x, y, dx, dy, cost) => {
    const nx = x + dx;
    const ny = y + dy;
    // The picture's edge counts as one: a name should stand inside.
    if (nx < 0 || ny < 0 || nx >= width || ny >= height) return cost;
    const next = ny * width + nx;
    return map[next] === map[at] ? far[next] + cost : cost;
  };
  for (let y = 0, at = 0; y < height; ++y) {
    for (let x = 0; x < width; ++x, ++at) {
      far[at] = Math.min(
        step(at, x, y, -1, 0, 3), step(at, x, y, 0, -1, 3),
        step(at, x, y, -1, -1, 4), step(at, x, y, 1, -1, 4),
      );
    }
  }
  for (let y = height - 1, at = map.length - 1; y >= 0; --y) {
    for (let x = width - 1; x >= 0; --x, --at) {
      far[at] = Math.min(
        far[at], step(at, x, y, 1, 0, 3), step(at, x, y, 0, 1, 3),
        step(at, x, y, 1, 1, 4), step(at, x, y, -1, 1, 4),
      );
      const region = regions[map[at]];
      if (far[at] > 3 * region.radius) Object.assign(region, { x, y, radius: far[at] / 3 });
    }
  }
}

/**
 * Enlarges a map of regions with smooth edges: at each point the region with the greatest weight
 * under a quadratic B-spline over 3 x 3 pixels.
 * @param {Uint16Array} map of the area; @returns {Uint16Array} (outHeight, outWidth).
 */
export function smoothRegions(map, { width, height }, outWidth, outHeight) {
  const mixed = new Uint8Array(map.length); // whether a neighbour is another region
  for (let y = 0, at = 0; y < height; ++y) {
    for (let x = 0; x < width; ++x, ++at) {
      for (let dy = y > 0 ? -1 : 0; dy <= (y < height - 1 ? 1 : 0); ++dy) {
        for (let dx = x > 0 ? -1 : 0; dx <= (x < width - 1 ? 1 : 0); ++dx) {
          if (map[at + dy * width + dx] !== map[at]) mixed[at] = 1;
        }
      }
    }
  }
  const [columns, acrossX] = weights(width, outWidth);
  const [rows, acrossY] = weights(height, outHeight);
  const out = new Uint16Array(outWidth * outHeight);
  const ids = new Int32Array(9);
  const sums = new Float64Array(9);
  for (let y = 0, to = 0; y < outHeight; ++y) {
    const row = rows[y] * width;
    for (let x = 0; x < outWidth; ++x, ++to) {
      const at = row + columns[x];
      if (!mixed[at]) {
        out[to] = map[at];
        continue;
      }
      let known = 0;
      for (let dy = -1; dy <= 1; ++dy) {
        const ny = Math.min(height - 1, Math.max(0, rows[y] + dy)) * width;
        for (let dx = -1; dx <= 1; ++dx) {
          const nx = Math.min(width - 1, Math.max(0, columns[x] + dx));
          const id = map[ny + nx];
          const weight = acrossY[3 * y + dy + 1] * acrossX[3 * x + dx + 1];
          let k = 0;
          while (k < known && ids[k] !== id) ++k;
          if (k === known) {
            ids[known] = id;
            sums[known++] = 0;
          }
          sums[k] += weight;
        }
      }
      let best = 0;
      for (let k = 1; k < known; ++k) if (sums[k] > sums[best]) best = k;
      out[to] = ids[best];
    }
  }
  return out;
}

/** For each place of a longer row the nearest pixel, and the weights of it and its neighbours. */
function weights(length, outLength) {
  const nearest = new Int32Array(outLength);
  const values = new Float64Array(3 * outLength);
  for (let i = 0; i < outLength; ++i) {
    const place = ((i + 0.5) * length) / outLength - 0.5;
    nearest[i] = Math.min(length - 1, Math.max(0, Math.round(place)));
    const off = Math.min(0.5, Math.max(-0.5, place - nearest[i]));
    values[3 * i] = 0.5 * (0.5 - off) ** 2;
    values[3 * i + 1] = 0.75 - off ** 2;
    values[3 * i + 2] = 0.5 * (0.5 + off) ** 2;
  }
  return [nearest, values];
}
