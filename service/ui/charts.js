// Small SVG charts. Colours and strokes are classes of ui.css, since the page allows no inline styles.

const NAMESPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 132;
const LEFT = 46;
const BOTTOM = 18;
const TOP = 8;
/** How many line styles ui.css has. */
const STYLES = 6;

export function element(name, attributes, text) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  if (text !== undefined) {
    made.textContent = text;
  }
  return made;
}

export function style(place) {
  return `s${(place % STYLES) + 1}`;
}

/**
 * Draw lines over time.
 *
 * `lines` is a list of lists of [time, value], value null where there is none; `from` and `to` are times. The largest
 * value sets the scale, and at least `least`.
 */
export function lineChart(svg, lines, { from, to, least, format }) {
  // As wide as it is shown, so that its texts have the size of the page's.
  const width = svg.clientWidth || 360;
  const values = lines.flat().map(([, value]) => value ?? 0);
  const top = roundUp(Math.max(least, ...values));
  const x = (time) => LEFT + ((width - LEFT - 4) * (time - from)) / (to - from);
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * value) / top;
  const parts = [];
  for (const value of [0, top / 2, top]) {
    parts.push(element("line", { class: "grid", x1: LEFT, x2: width - 4, y1: y(value), y2: y(value) }));
    parts.push(element("text", { x: LEFT - 6, y: y(value) + 3.5, "text-anchor": "end" }, format(value)));
  }
  const ago = Math.round((to - from) / 60);
  parts.push(element("text", { x: LEFT, y: HEIGHT - 4 }, `${ago} min ago`));
  parts.push(element("text", { x: width - 4, y: HEIGHT - 4, "text-anchor": "end" }, "now"));
  lines.forEach((points, place) => {
    parts.push(element("path", { class: `line ${style(place)}`, d: path(points, from, x, y) }));
  });
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(...parts);
}

function path(points, from, x, y) {
  let drawn = "";
  let pen = "M";
  for (const [time, value] of points) {
    if (value === null || time < from) {
      pen = "M";
      continue;
    }
    drawn += `${pen}${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  }
  return drawn;
}

/** The next of 1, 2, 5, 10, 20, … */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.9999);
}

/** Draw shares of bins: the reference as a broad bar behind, what is now as a narrow one in front. */
export function binChart(reference, observed, label) {
  const height = 30;
  const top = Math.max(...reference, ...observed);
  const svg = element("svg", {
    class: "bins", viewBox: `0 0 ${reference.length * 10} ${height}`, preserveAspectRatio: "xMinYMid", role: "img",
    "aria-label": label,
  });
  reference.forEach((share, place) => {
    for (const [value, kind, inset] of [[share, "reference", 0.5], [observed[place], "observed", 3]]) {
      const length = (height * value) / top;
      svg.append(element("rect", {
        class: kind, x: place * 10 + inset, width: 10 - 2 * inset,
        y: (height - length).toFixed(2), height: length.toFixed(2),
      }));
    }
  });
  return svg;
}

/** Draw a share as a bar; the number stands beside it, so it is hidden from who can't see it. */
export function shareBar(share) {
  const svg = element("svg", { class: "share", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(element("rect", { class: "reference", x: 0, y: 0, width: 100, height: 8 }));
  svg.append(element("rect", { class: "observed", x: 0, y: 0, width: (share * 100).toFixed(1), height: 8 }));
  return svg;
}
