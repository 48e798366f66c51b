// What the pictures to move share: numbers in words, axes, curves, and one calm voice for screen readers.

// As Python's format(value, ".<digits>g").
function g(value, digits) {
  if (!Number.isFinite(value)) return value > 0 ? "inf" : value < 0 ? "-inf" : "nan";
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e").map(Number);
  if (power >= -4 && power < digits) return String(Number(value.toPrecision(digits)));
  const two = String(Math.abs(power)).padStart(2, "0");
  return `${mantissa}e${power < 0 ? "-" : "+"}${two}`;
}

const tenTo = (power) => `10${[...String(power)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;

// For people: four digits, but whole numbers whole; thousands are set apart, small and large numbers are written with a power of ten.
function spelled(value, digits = 4) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e").map(Number);
    return `${mantissa}·${tenTo(power)}`;
  }
  const shown = size < 10 ** (digits - 1) ? Number(value.toPrecision(digits)) : Math.round(value);
  return shown.toLocaleString("en", { maximumFractionDigits: 20 });
}

// An element that holds a number as it is, and shows it to people.
function number(value, digits = 4) {
  const element = document.createElement("data");
  element.value = value;
  element.textContent = spelled(value, digits);
  return element;
}

function drawn(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Where there is room for one panel in a row only, it is wide and low.
const shape = (root) => (root.clientWidth < 420 ? { width: 340, height: 150 } : { width: 240, height: 190 });

// Axes in an empty <svg>: x and y are { from, to, log, label, ticks, words }. Returns where a point lies (`at`), and a
// group, cut off at the frame, for what is drawn.
function axes(svg, x, y, { width, height, right = 10, title = "" }) {
  const left = 46, top = title ? 20 : 8, bottom = 36;
  const place = ({ from, to, log }, low, high) => {
    const turn = log ? Math.log10 : Number;
    return (value) => low + ((turn(value) - turn(from)) / (turn(to) - turn(from))) * (high - low);
  };
  const px = place(x, left, width - right), py = place(y, height - bottom, top);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const middle = (left + width - right) / 2, centre = (top + height - bottom) / 2;
  if (title) svg.append(drawn("text", { x: middle, y: 12, "text-anchor": "middle", class: "title" }, title));
  for (const [tick, i] of x.ticks.map((t, i) => [t, i])) {
    svg.append(drawn("path", { class: "grid", d: `M${px(tick)} ${top}V${height - bottom}` }));
    svg.append(drawn("text", { x: px(tick), y: height - bottom + 13, "text-anchor": "middle" }, x.words?.[i] ?? spelled(tick)));
  }
  for (const [tick, i] of y.ticks.map((t, i) => [t, i])) {
    svg.append(drawn("path", { class: "grid", d: `M${left} ${py(tick)}H${width - right}` }));
    svg.append(drawn("text", { x: left - 4, y: py(tick) + 4, "text-anchor": "end" }, y.words?.[i] ?? spelled(tick)));
  }
  svg.append(drawn("text", { x: middle, y: height - 5, "text-anchor": "middle" }, x.label));
  const turned = `rotate(-90 11 ${centre})`;
  svg.append(drawn("text", { x: 11, y: centre, "text-anchor": "middle", transform: turned }, y.label));
  const frame = `${svg.closest("[id]").id}-${[...document.querySelectorAll("svg")].indexOf(svg)}`;
  const cut = drawn("clipPath", { id: frame }), group = drawn("g", { "clip-path": `url(#${frame})` });
  cut.append(drawn("rect", { x: left, y: top - 1, width: width - left - right, height: height - top - bottom + 2 }));
  svg.append(cut, group);
  const below = 4 * height; // far outside of the frame, for what no logarithm reaches
  const at = (a, b) => [px(a), y.log && !(b > 0) ? below : Math.min(below, Math.max(-height, py(b)))];
  return { at, group };
}

// A curve through points [x, y] as a path's "d", to a thousandth of a pixel.
function curve(at, points) {
  return points.map(([a, b], i) => `${i ? "L" : "M"}${at(a, b).map((n) => +n.toFixed(3)).join(" ")}`).join("");
}

// Says a text once things have been still for a moment, not at each step of a slider; not what stands there at first.
function voice(element) {
  let timer = null, first = true;
  return (text) => {
    clearTimeout(timer);
    if (first) return void (first = false);
    timer = setTimeout(() => { if (element.textContent !== text) element.textContent = text; }, 700);
  };
}

// Shows what moves in place of the still picture.
function wake(root) {
  root.querySelector(".live").hidden = false;
  root.classList.add("awake");
}
