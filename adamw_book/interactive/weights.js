// The closed forms of weights.py, and the picture of them.

function approach(distance, lr, l2, rest, steps, { beta1, beta2, eps }) {
  let m = 0, v = 0, left1 = 1, left2 = 1;
  const found = [];
  for (let t = 1; t <= steps.at(-1); t++) {
    const slope = l2 * distance;
    m = beta1 * m + (1 - beta1) * slope;
    v = beta2 * v + (1 - beta2) * slope * slope;
    left1 *= beta1;
    left2 *= beta2;
    distance -= (lr * (m / (1 - left1))) / (Math.sqrt(v / (1 - left2)) + eps);
    if (distance <= rest) {
      while (found.length < steps.length) found.push(rest);
      return [found, t];
    }
    if (t === steps[found.length]) found.push(distance);
  }
  return [found, null];
}

function atRest({ lr, weight_decay, l2, sigma }, { start, eps, ring }) {
  return {
    silent: { AdamW: 0, "Adam + L2": Math.max(0, lr / ring - eps / l2), Adam: start },
    noisy: { AdamW: Math.sqrt(lr / (2 * weight_decay)), "Adam + L2": Math.sqrt((lr * sigma) / (2 * l2)), Adam: null },
    driven: { AdamW: 1 / weight_decay, "Adam + L2": sigma / l2, Adam: null },
  };
}

function closedForms(settings, steps, constants) {
  const { lr, weight_decay, l2, sigma } = settings, { start } = constants;
  const rest = atRest(settings, constants), ringing = rest.silent["Adam + L2"], level = rest.driven["Adam + L2"];
  const kept = Math.log1p(-lr * weight_decay);
  const spread = (share) => (t) => lr * Math.sqrt(share ? -Math.expm1(-2 * share * t) / (2 * share) : t);
  const [emptied, emptiedAt] = approach(start, lr, l2, ringing, steps, constants);
  const [filled] = approach(level, lr, l2, ringing, steps, constants);
  return {
    rest,
    arrivals: { AdamW: -Math.LN2 / kept, "Adam + L2": emptiedAt },
    paths: {
      silent: { AdamW: steps.map((t) => start * Math.exp(t * kept)), "Adam + L2": emptied, Adam: steps.map(() => start) },
      noisy: {
        AdamW: steps.map(spread(lr * weight_decay)),
        "Adam + L2": steps.map(spread((lr * l2) / sigma)),
        Adam: steps.map(spread(0)),
      },
      driven: {
        AdamW: steps.map((t) => -Math.expm1(t * kept) / weight_decay),
        "Adam + L2": filled.map((left) => level - (left > ringing ? left : 0)),
        Adam: steps.map((t) => lr * t),
      },
    },
  };
}

function start(root, data) {
  wake(root);
  const inputs = [...root.querySelectorAll("input")], remark = root.querySelector(".remark");
  const say = voice(root.querySelector(".said"));
  const powers = [-6, -4, -2, 0, 2], decades = [0, 1, 2, 3, 4, 5];
  const marked = (all) => ({ ticks: all.map((k) => Number(`1e${k}`)), words: all.map((k) => (k ? tenTo(k) : "1")) });
  const panels = [...root.querySelectorAll(".panel")].map((svg) => {
    const { kind } = svg.dataset;
    const { at, group } = axes(
      svg,
      { from: data.steps[0], to: data.steps.at(-1), log: true, label: "step", ...marked(decades) },
      { from: data.limits[0], to: data.limits[1], log: true, label: "size", ...marked(powers) },
      { ...shape(root), title: `${kind}: ${data.kinds[kind]}` },
    );
    const lines = {};
    for (const arm of ["Adam", "Adam + L2", "AdamW"]) {
      lines[arm] = drawn("path", { class: "line", "data-arm": arm });
      group.append(lines[arm]);
    }
    return { svg, kind, at, lines };
  });
  const cells = (kind, arm) => root.querySelector(`tr[data-arm="${arm}"]`).cells[1 + Object.keys(data.kinds).indexOf(kind)];

  function show() {
    const settings = {};
    for (const input of inputs) {
      const value = (settings[input.name] = data.values[input.name][input.value]);
      input.setAttribute("aria-valuetext", spelled(value, 2));
      root.querySelector(`output[for="${input.id}"]`).replaceChildren(number(value, 2));
    }
    const { rest, arrivals, paths } = closedForms(settings, data.steps, data.constants);
    const told = [];
    for (const { svg, kind, at, lines } of panels) {
      const words = [];
      for (const [arm, path] of Object.entries(paths[kind])) {
        lines[arm].setAttribute("d", curve(at, path.map((size, i) => [data.steps[i], size])));
        const cell = cells(kind, arm), size = rest[kind][arm];
        cell.replaceChildren(...(size === null ? ["no rest"] : [number(size)]));
        if (kind === "silent" && arm === "AdamW") cell.append(", half at step ", number(arrivals[arm]));
        if (kind === "silent" && arm === "Adam + L2") {
          cell.append(...(arrivals[arm] === null ? [", not within 100,000 steps"] : [" from step ", number(arrivals[arm])]));
        }
        words.push(`${arm} ${cell.textContent}`);
      }
      told.push(`${kind}: ${words.join("; ")}`);
      svg.setAttribute("aria-label", `Size against step, ${told.at(-1)}.`);
    }
    const share = (settings.lr * settings.l2) / settings.sigma;
    remark.textContent =
      share > 1
        ? `ηℓ/σ = ${spelled(share, 2)} is above 1: for the noisy weight under Adam + L2 the formula is only rough here.`
        : `Adam + L2 takes ηℓ/σ = ${spelled(share, 2)} of a noisy weight at each step, AdamW ηλ = ${spelled(settings.lr * settings.weight_decay, 2)}.`;
    say(`At rest. ${told.join(". ")}.`);
  }
  for (const input of inputs) input.addEventListener("input", show);
  show();
}
