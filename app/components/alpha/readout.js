// Accuracies from scores: the same arithmetic, in the same order, as the engine's.

/** What multiplies each task vector's scores: alpha, or alpha / T for the mean, from the anchor. */
function coefficients(header, alphas) {
  const T = alphas.length;
  const scale = header.convention === "mean" ? T : 1;
  return alphas.map((alpha, t) => alpha / scale - (header.anchor ? header.anchor[t] / scale : 0));
}

/** s_0 + c_1 s_1 + ... + c_T s_T in doubles, multiplied then added, in this order. */
function mergeScores(task, coefs, merged) {
  const size = task.n * task.classes.length;
  const { first, rest } = task;
  for (let i = 0; i < size; i++) merged[i] = first[i];
  for (let t = 0; t < coefs.length; t++) {
    const coef = coefs[t];
    if (coef === 0) continue; // adding zero changes nothing
    const from = t * size;
    for (let i = 0; i < size; i++) merged[i] += coef * rest[from + i];
  }
}

/** Predicted class of every image (the lowest index wins a tie) and how many are right. */
function predict(task, merged, predictions) {
  const C = task.classes.length;
  let correct = 0;
  for (let n = 0, row = 0; n < task.n; n++, row += C) {
    let best = 0;
    let top = merged[row];
    for (let c = 1; c < C; c++) {
      if (merged[row + c] > top) {
        top = merged[row + c];
        best = c;
      }
    }
    predictions[n] = best;
    if (best === task.labels[n]) correct++;
  }
  return correct;
}

/** Buffers to read into, and the two references every bar shows. */
function prepareTasks(header, tasks) {
  const largest = Math.max(...tasks.map((task) => task.n * task.classes.length));
  const merged = new Float64Array(largest);
  const zeros = header.sliders.map(() => 0);
  return tasks.map((task) => {
    const slider = header.sliders.findIndex((s) => s.name === task.name);
    const prepared = { ...task, slider, merged, predictions: new Uint16Array(task.n) };
    if (!prepared.zeroshotPredictions) {
      prepared.zeroshotPredictions = new Uint16Array(task.n);
      mergeScores(prepared, zeros, merged);
      predict(prepared, merged, prepared.zeroshotPredictions);
    }
    prepared.zeroshot = countRight(prepared, prepared.zeroshotPredictions) / task.n;
    if (prepared.single === null && slider >= 0) {
      mergeScores(prepared, zeros.map((_, t) => (t === slider ? 1 : 0)), merged);
      prepared.single = predict(prepared, merged, new Uint16Array(task.n)) / task.n;
    }
    return prepared;
  });
}

function countRight(task, predictions) {
  let right = 0;
  for (let n = 0; n < task.n; n++) if (predictions[n] === task.labels[n]) right++;
  return right;
}

/** 95 % interval of a proportion (Wilson, 1927). */
function wilson(right, n) {
  const z = 1.959963984540054;
  const p = right / n;
  const centre = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/** Mean over the tasks that are no control of whatever `value` gives; null if it gives none. */
function meanOver(tasks, value) {
  const values = tasks.filter((task) => !task.control).map(value).filter((v) => v !== null);
  return values.length ? values.reduce((sum, v) => sum + v, 0) / values.length : null;
}

/** Accuracy relative to the task's own vector alone; null where there is none. */
function normalized(task, accuracy) {
  return task.single ? accuracy / task.single : null;
}

/** Every number shown, for these alphas: predictions are left in each task's buffer. */
function readOut(header, tasks, alphas) {
  const coefs = coefficients(header, alphas);
  const rows = tasks.map((task) => {
    mergeScores(task, coefs, task.merged);
    const right = predict(task, task.merged, task.predictions);
    return { name: task.name, right, n: task.n, accuracy: right / task.n };
  });
  const accuracyOf = (task) => rows[tasks.indexOf(task)].accuracy;
  const control = tasks.find((task) => task.control) ?? null;
  return {
    rows,
    absolute: meanOver(tasks, accuracyOf),
    normalized: meanOver(tasks, (task) => normalized(task, accuracyOf(task))),
    control: control && accuracyOf(control),
    controlChange: control && accuracyOf(control) - control.zeroshot,
  };
}

/** Counts, true class by predicted class, row after row. */
function confusionCounts(task) {
  const C = task.classes.length;
  const counts = new Uint32Array(C * C);
  for (let n = 0; n < task.n; n++) counts[task.labels[n] * C + task.predictions[n]]++;
  return counts;
}

/** All tasks with their arrays: some came with the header, the others are kept in the page. */
function unpackTasks(bytes, header, length, kept) {
  const body = readBody(bytes, length);
  const { offset } = header.settled;
  const read = (place) => (place && place.offset >= offset ? readArray(kept, { ...place, offset: place.offset - offset }) : readArray(body, place));
  return header.tasks.map((task) => {
    const scores = read(task.scores);
    const size = task.n * task.classes.length;
    return {
      ...task,
      labels: read(task.labels),
      first: read(task.exact) ?? scores.subarray(0, size),
      rest: task.exact ? scores : scores.subarray(size),
      zeroshotPredictions: read(task.zeroshot),
      pictures: read(task.pictures),
    };
  });
}
