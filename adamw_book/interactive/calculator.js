// What adamw_book.diagnose.audit_numbers computes, from the text of a form's fields.

const cosine = (progress) => 0.5 * (1 + Math.cos(Math.PI * progress));
const SCHEDULES = {
  constant: () => 1,
  linear: (p) => 1 - p,
  cosine,
  "warm-up + cosine": (p) => (p < 0.1 ? p / 0.1 : cosine((p - 0.1) / 0.9)),
  WSD: (p) => Math.min(1, p / 0.1, (1 - p) / 0.2),
  "one-cycle": (p) => {
    if (p < 0.3) return 1 / 25 + (1 - 1 / 25) * cosine(1 - p / 0.3);
    return 1 / 250000 + (1 - 1 / 250000) * cosine((p - 0.3) / 0.7);
  },
};

const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const counted = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

// The arguments that the texts of the fields stand for, and {field: what is wrong with it}.
function read(texts, { falling, most }) {
  const found = { schedule: texts.schedule }, wrong = {};
  const refuse = (name, needed) => { wrong[name] = `${name}: ${texts[name] === "" ? "nothing" : texts[name]}; ${needed} is needed`; };
  const real = (name, fits, needed) => {
    found[name] = DECIMAL.test(texts[name]) ? Number(texts[name]) : NaN;
    if (!fits(found[name])) refuse(name, needed);
  };
  const whole = (name, least, greatest, needed) => {
    found[name] = /^[+-]?\d+$/.test(texts[name]) ? Number(texts[name]) : NaN;
    if (!(found[name] >= least && found[name] <= greatest)) refuse(name, needed);
  };
  real("lr", (n) => n > 0 && n < Infinity, "a finite number above 0");
  real("weight_decay", (n) => n >= 0 && n < Infinity, "a finite number of 0 or more");
  if (!wrong.lr && !wrong.weight_decay && !(found.lr * found.weight_decay < 1e301)) {
    wrong.weight_decay = "lr · weight_decay: inf; a product that a float can hold is needed";
  }
  whole("steps", 1, most, `a whole number from 1 to ${counted(most)}`);
  if (!wrong.steps) whole("warmup", 0, found.steps - 1, `a whole number of steps, fewer than the ${found.steps} of the run,`);
  real("final", (n) => n >= 0 && n <= 1, "a share of the peak rate, from 0 to 1,");
  if (!wrong.final && found.final && !falling.includes(found.schedule)) {
    wrong.final = `final: ${texts.final} with the schedule '${found.schedule}'; it fits ${falling.join(" and ")} only`;
  }
  if (texts.batch_size !== "" || texts.dataset_size !== "") {
    for (const [name, other] of [["batch_size", "dataset_size"], ["dataset_size", "batch_size"]]) {
      if (texts[name] === "") wrong[name] = `${name}: None, beside ${other}; epochs need both, or leave out both`;
    }
    if (texts.dataset_size !== "") whole("dataset_size", 1, Infinity, "a positive whole number");
    if (texts.batch_size !== "" && texts.dataset_size !== "" && !wrong.dataset_size) {
      whole("batch_size", 1, found.dataset_size, `a whole number of examples, at most the data set's ${found.dataset_size},`);
    }
  }
  return [found, wrong];
}

// Python's str.format, for names and the format g.
const filled = (template, values) =>
  template.replace(/\{(\w+)(?::\.(\d+)g)?\}/g, (_, name, digits) => (digits ? g(values[name], Number(digits)) : values[name]));

function audited(run, data) {
  const { lr, weight_decay, steps, warmup, final } = run, shape = SCHEDULES[run.schedule], { beta1 } = data;
  const perStep = run.dataset_size ? run.batch_size / run.dataset_size : null;
  const parts = Math.min(steps, data.points), marks = [...Array(parts + 1).keys()].map((i) => evenly((i * steps) / parts));
  const climbing = warmup / steps, course = [[0, 1]];
  let left = 1, total = 0, fastest = -1, highest = 0, early = 0, afterClimb = 1, climb = 0, halved = null;
  for (let t = 0; t < steps; t++) {
    const progress = (t + 0.5) / steps;
    let factor = progress / climbing;
    if (t >= warmup) {
      factor = shape(Math.max(0, (progress - climbing) / (1 - climbing)));
      if (final) factor = final + (1 - final) * factor;
    }
    const rate = lr * factor, share = rate * weight_decay;
    if (rate > fastest) [fastest, climb, early, afterClimb] = [rate, t, total, left];
    highest = Math.max(highest, share);
    total += share;
    left *= 1 - share;
    if (halved === null && left <= 0.5) halved = t + 1;
    if (t + 1 === marks[course.length]) course.push([t + 1, left]);
  }
  const share = lr * weight_decay, timescale = share ? 1 / share : null, defined = share > 0 && share < 1;
  const finite = (value) => (Number.isFinite(value) ? value : null);
  const found = {
    remaining: finite(left),
    remaining_after_warmup: finite(afterClimb),
    warmup_steps: climb,
    warmup_share: total ? early / total : null,
    half_left_after: halved,
    timescales_in_run: total,
    epochs: perStep ? steps * perStep : null,
    timescale_steps: timescale,
    timescale_epochs: share && perStep ? timescale * perStep : null,
    half_life_steps: defined ? -Math.LN2 / Math.log1p(-share) : null,
    noise_floor: defined ? lr / Math.sqrt(2 * share) : null,
    rotation_per_step: share < 1 ? Math.sqrt((2 * share * (1 - beta1)) / (1 + beta1)) : null,
  };
  return { ...found, findings: findings(found, weight_decay, weight_decay * fastest, data), course };
}

// Python and numpy round halves to the even neighbour.
function evenly(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below % 2) : Math.round(value);
}

function findings({ remaining, warmup_share, warmup_steps, timescales_in_run }, weight_decay, share, data) {
  const holds = {
    no_decay: share === 0,
    share_above_one: share >= 1,
    share_above_momentum: 1 - data.beta1 < share && share < 1,
    decay_idle: share > 0 && share < 1 && remaining > data.idle,
    decay_in_warmup: share > 0 && warmup_share > 0.5,
    initial_forgotten: share > 0 && share < 1 && remaining < data.forgotten,
  };
  const values = {
    where: "",
    share,
    start: weight_decay / timescales_in_run,
    forgotten: 1 / share,
    momentum: 1 / (1 - data.beta1),
    remaining,
    percent_left: 100 * remaining,
    percent_early: 100 * warmup_share,
    shorter: Math.max(1, Math.floor(warmup_steps / 10)),
  };
  return Object.keys(holds)
    .filter((code) => holds[code])
    .map((code) => {
      const [severity, text, fix] = data.templates[code];
      return { code, severity, text: filled(text, values), fix: filled(fix, values) };
    })
    .sort((a, b) => data.severities.indexOf(a.severity) - data.severities.indexOf(b.severity));
}

function start(root, data) {
  wake(root);
  const form = root.querySelector("form"), svg = root.querySelector(".panel"), list = root.querySelector(".findings");
  const fields = [...form.elements], say = voice(root.querySelector(".said"));
  const cells = Object.fromEntries([...root.querySelectorAll("tr[data-key]")].map((row) => [row.dataset.key, row.cells[1]]));

  function show() {
    const texts = Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]));
    const [run, wrong] = read(texts, data);
    for (const field of fields) {
      root.querySelector(`#${field.id}-wrong`).textContent = wrong[field.name] ?? "";
      field.setAttribute("aria-invalid", String(field.name in wrong));
    }
    if (Object.keys(wrong).length) {
      for (const cell of Object.values(cells)) cell.textContent = "–";
      list.replaceChildren();
      axes(svg, ...frame(1), box);
      svg.setAttribute("aria-label", "Nothing is drawn: a field needs to be mended.");
      return say(Object.values(wrong).join(". "));
    }
    const found = audited(run, data);
    for (const [key, cell] of Object.entries(cells)) {
      cell.replaceChildren(...(found[key] === null ? ["–"] : [number(found[key]), data.units[key]]));
    }
    list.replaceChildren(...found.findings.map(item));
    if (!found.findings.length) list.append(Object.assign(document.createElement("li"), { textContent: "Nothing found that would need to be mended." }));
    const { at, group } = axes(svg, ...frame(run.steps), box);
    const points = found.course.map(([t, left]) => [t, Number.isFinite(left) ? left : Math.sign(left) || 0]);
    group.append(drawn("path", { class: "line", "data-arm": "AdamW", d: curve(at, points) }));
    const ends = found.remaining === null ? "beyond all numbers" : spelled(found.remaining);
    svg.setAttribute("aria-label", `What decay alone leaves of an initial weight against the step, from 1 to ${ends}.`);
    say(`Left of the initial weights: ${ends}. ${found.findings.map((f) => `${f.severity}: ${f.text}`).join(" ") || "Nothing found."}`);
  }

  const box = root.clientWidth < 420 ? { width: 340, height: 170, right: 24 } : { width: 360, height: 230, right: 24 };
  const frame = (steps) => [
    { from: 0, to: steps, label: "step", ticks: steps > 1 ? [0, Math.round(steps / 2), steps] : [0, 1] },
    { from: 0, to: 1.03, label: "left by decay alone", ticks: [0, 0.25, 0.5, 0.75, 1] },
  ];

  function item({ severity, text, fix }) {
    const element = document.createElement("li"), code = document.createElement("code");
    const kind = Object.assign(document.createElement("strong"), { textContent: `${severity}: ` });
    code.textContent = fix;
    element.append(kind, `${text} `, code);
    return element;
  }

  let timer = null;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    show();
  });
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(show, 120); // ten million steps take a moment
  });
  show();
}
