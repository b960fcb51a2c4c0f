// Arithmetic on counters, and how numbers are written. Nothing here touches the page.

/** Added to each bin's count before it becomes a share, as in the reference (muelle/bundle/binning.py). */
const SMOOTHING = 0.5;
/** What muelle/drift/statistics.py and the alerts in Prometheus ask for, too. */
const EXCESS = 0.2;
const MINIMUM = 200;

/** The latest states of one server, oldest first, for so many seconds. */
export class History {
  constructor(seconds) {
    this.seconds = seconds;
    this.states = [];
  }

  /** Take a state; another server's, or one that has started anew, forgets what was before. */
  add(state) {
    const last = this.latest;
    if (last && (last.instance !== state.instance || last.started_at !== state.started_at)) {
      this.states = [];
    } else if (last && state.now <= last.now) {
      return;
    }
    this.states.push(state);
    // One that is older than the window is kept: the window begins there.
    while (this.states.length > 2 && this.states[1].now <= state.now - this.seconds) {
      this.states.shift();
    }
  }

  get latest() {
    return this.states[this.states.length - 1];
  }

  /** The state from which on `seconds` are counted up to `state`, or the oldest there is. */
  before(state, seconds) {
    let found = this.states[0];
    for (const candidate of this.states) {
      if (candidate.now > state.now - seconds) {
        break;
      }
      found = candidate;
    }
    return found;
  }
}

export function keyOf(model) {
  return `${model.model}@${model.version}`;
}

export function modelOf(state, key) {
  return state.models.find((model) => keyOf(model) === key);
}

export function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/** The increase of each count; all of it where nothing was known before. */
export function increase(now, before) {
  return now.map((value, place) => Math.max(value - (before?.[place] ?? 0), 0));
}

/** Requests by status code, all models' when no key is given. */
export function requests(state, key) {
  const found = {};
  const groups = key ? [modelOf(state, key)?.requests ?? {}] : [...state.models.map((m) => m.requests), state.unknown];
  for (const group of groups) {
    for (const [code, count] of Object.entries(group)) {
      found[code] = (found[code] ?? 0) + count;
    }
  }
  return found;
}

export function count(byCode, first) {
  return sum(Object.entries(byCode).map(([code, number]) => (!first || code.startsWith(first) ? number : 0)));
}

/** What `read` counts, per second between two states; null when they are the same one. */
export function rate(now, before, read) {
  const seconds = now.now - before.now;
  return seconds > 0 ? Math.max(read(now) - read(before), 0) / seconds : null;
}

/** Requests in each bucket of latency between two states; without a key all models together. */
export function latencies(now, before, key) {
  const keys = key ? [key] : now.models.map(keyOf);
  const total = [...now.bounds_seconds.map(() => 0), 0];
  for (const each of keys) {
    const found = increase(modelOf(now, each)?.seconds ?? [], before && modelOf(before, each)?.seconds);
    found.forEach((number, place) => { total[place] += number; });
  }
  return total;
}

/** A quantile from buckets, as Prometheus' histogram_quantile has it; null when they are empty. */
export function quantile(share, bounds, counts) {
  const rank = share * sum(counts);
  if (rank === 0) {
    return null;
  }
  let below = 0;
  for (const [place, number] of counts.entries()) {
    if (below + number >= rank) {
      if (place === bounds.length) {
        return bounds[place - 1];
      }
      const low = place === 0 ? 0 : bounds[place - 1];
      return low + ((bounds[place] - low) * (rank - below)) / number;
    }
    below += number;
  }
  return bounds[bounds.length - 1];
}

/**
 * A window of counts against the reference.
 *
 * The same numbers as muelle/drift/statistics.py, which says where they come from.
 */
export function compare(counts, reference) {
  const rows = sum(counts);
  const smoothed = counts.map((number) => (number + SMOOTHING) / (rows + SMOOTHING * counts.length));
  const scale = 1 / Math.max(rows, 1) + 1 / Math.max(reference.observations, 1);
  const psi = sum(smoothed.map((share, place) => {
    const expected = reference.ratios[place];
    return (share - expected) * Math.log(share / expected);
  }));
  const critical = reference.critical * scale;
  const excess = Math.max(psi - (counts.length - 1) * scale, 0);
  let largest = 0;
  smoothed.forEach((share, place) => {
    const change = Math.abs(share - reference.ratios[place]);
    if (change > Math.abs(smoothed[largest] - reference.ratios[largest])) {
      largest = place;
    }
  });
  let state = "too few rows";
  if (rows > MINIMUM) {
    state = excess > EXCESS && psi > critical ? "drifted" : "stable";
  }
  return { rows, psi, excess, critical, state, shares: smoothed, largest };
}

/** Every counted feature of a model between two states (since the start without `before`), the largest excess first. */
export function drift(now, before, key, references) {
  const bins = modelOf(now, key)?.bins ?? {};
  const earlier = before ? modelOf(before, key)?.bins ?? {} : {};
  const found = [];
  for (const [feature, counts] of Object.entries(bins)) {
    const reference = references[feature];
    if (reference) {
      found.push({ feature, reference, ...compare(increase(counts, earlier[feature]), reference) });
    }
  }
  const order = { drifted: 0, stable: 1, "too few rows": 2 };
  return found.sort((a, b) => order[a.state] - order[b.state] || b.excess - a.excess || b.psi - a.psi);
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function integer(value) {
  return whole.format(value);
}

export function perSecond(value) {
  if (value === null) {
    return "–";
  }
  return value >= 100 ? integer(value) : value.toFixed(value >= 10 ? 1 : 2);
}

export function duration(seconds) {
  if (seconds === null) {
    return "–";
  }
  if (seconds >= 1) {
    return `${seconds.toFixed(2)} s`;
  }
  const milliseconds = seconds * 1000;
  return `${milliseconds.toFixed(milliseconds >= 10 ? 0 : milliseconds >= 1 ? 1 : 2)} ms`;
}

export function percent(share) {
  if (share === null) {
    return "–";
  }
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(share * 100).toFixed(share >= 0.1 ? 0 : 1)} %`;
}

export function bytes(value) {
  const mebibytes = value / 1024 ** 2;
  return mebibytes >= 1024 ? `${(mebibytes / 1024).toFixed(2)} GiB` : `${mebibytes.toFixed(0)} MiB`;
}

export function span(seconds) {
  if (seconds < 90) {
    return `${Math.max(Math.round(seconds), 0)} s`;
  }
  if (seconds < 90 * 60) {
    return `${Math.round(seconds / 60)} min`;
  }
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}
