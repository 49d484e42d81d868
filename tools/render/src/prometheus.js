// Questions to Prometheus, and its answers as Grafana's data frames.
//
// The server beside this page passes `/api/v1/...` on to the real Prometheus. What is done to the answers (names of
// series, tables, sampling of exemplars, events of annotations) repeats what Grafana's Prometheus data source does.

import { createDataFrame, DataFrameType, FieldType, getFieldDisplayName, rangeUtil } from '@grafana/data';
import { forPromql, interpolate, timeVariables } from './variables.js';

/** Prometheus refuses a range query with more steps than this. */
const MOST_STEPS = 11000;
/** What Grafana asks annotations at when the annotation does not say. */
const ANNOTATION_STEP = '60s';

async function ask(path, parameters) {
  const body = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const item of [].concat(value)) {
      body.append(name, item);
    }
  }
  const response = await fetch(`/api/v1/${path}?${body}`);
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(`${path}: HTTP ${response.status}, and no JSON`);
  }
  if (answer.status !== 'success') {
    throw new Error(`${answer.errorType ?? 'error'}: ${answer.error ?? `HTTP ${response.status}`}`);
  }
  return answer;
}

const seconds = (time) => time.valueOf() / 1000;
const during = (range) => ({ start: seconds(range.from), end: seconds(range.to) });

export const client = {
  labelNames: async (selector, range) => (await ask('labels', { ...(selector && { 'match[]': selector }), ...during(range) })).data,
  labelValues: async (label, selector, range) =>
    (await ask(`label/${label}/values`, { ...(selector && { 'match[]': selector }), ...during(range) })).data,
  series: async (selector, range) =>
    (await ask('series', { 'match[]': selector, ...during(range) })).data.map(
      ({ __name__ = '', ...labels }) => `${__name__}{${Object.entries(labels).map(([name, value]) => `${name}="${value}"`).join(',')}}`
    ),
  instant: async (query, time) => (await ask('query', { query, time })).data,
  range: async (query, start, end, step) => (await ask('query_range', { query, start, end, step })).data,
  exemplars: async (query, start, end) => (await ask('query_exemplars', { query, start, end })).data,
};

// === Steps ===

/**
 * The step of a query in milliseconds and the variables that follow from it.
 *
 * @param width points that fit, one per pixel of the panel
 * @param asked the query's own shortest step, or empty; it may be one of the two interval variables
 */
function stepOf(range, width, asked, scrapeInterval) {
  const variable = /__(rate_)?interval/.exec(asked);
  const least = variable ? scrapeInterval : asked || scrapeInterval;
  const { intervalMs } = rangeUtil.calculateInterval(range, Math.max(1, Math.round(width)), least);
  const safest = Math.ceil((range.to.valueOf() - range.from.valueOf()) / MOST_STEPS / 1000) * 1000;
  const interval = Math.max(intervalMs, safest);
  const scrape = rangeUtil.intervalToMs(least);
  const rate = Math.max(interval + scrape, 4 * scrape);
  const step = variable?.[1] ? rate : interval;
  const written = (time) => (time % 1000 === 0 ? `${time / 1000}s` : `${time}ms`);
  return {
    step,
    scoped: {
      ...timeVariables(range),
      __interval: { value: written(step) },
      __interval_ms: { value: step },
      __rate_interval: { value: written(rate) },
      __rate_interval_ms: { value: rate },
    },
  };
}

// === Names ===

function metricText({ __name__ = '', ...labels }) {
  const written = Object.keys(labels).sort().map((name) => `${name}="${labels[name]}"`);
  return __name__ && written.length === 0 ? __name__ : `${__name__}{${written.join(', ')}}`;
}

/** The name of a series; empty leaves the choice to Grafana's own naming by labels. */
function legendOf(template, metric, expression) {
  let legend = metricText(metric);
  if (template === '__auto') {
    legend = Object.keys(metric).length > 0 ? '' : '{}';
  } else if (template) {
    legend = template.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => metric[label] ?? '');
  }
  return legend === '{}' ? expression : legend;
}

/** Prometheus writes numbers as texts, among them the three that JSON has not. */
function number(text) {
  switch (text) {
    case '+Inf':
      return Infinity;
    case '-Inf':
      return -Infinity;
    default:
      return parseFloat(text);
  }
}

// === Frames ===

function seriesFrame(refId, metric, samples, step, legend, isAuto) {
  const value = {
    // The field bears the metric's name where the query kept it.
    name: metric.__name__ ?? 'Value',
    type: FieldType.number,
    labels: metric,
    config: legend ? { displayNameFromDS: legend } : {},
    values: samples.map(([, text]) => number(text)),
  };
  const time = {
    name: 'Time',
    type: FieldType.time,
    config: step ? { interval: step } : {},
    values: samples.map(([at]) => Math.round(at * 1000)),
  };
  const frame = createDataFrame({
    refId,
    meta: { type: DataFrameType.TimeSeriesMulti, typeVersion: [0, 1], preferredVisualisationType: 'graph' },
    fields: [time, value],
  });
  if (isAuto && metric.__name__) {
    // The automatic name is the one by labels, as if the field had no name of its own.
    value.config.displayNameFromDS = getFieldDisplayName({ ...value, name: 'Value' }, frame, [frame]);
  }
  return frame;
}

function asSeries({ resultType, result }) {
  switch (resultType) {
    case 'matrix':
      return result.map(({ metric, values = [] }) => ({ metric, samples: values }));
    case 'vector':
      // A native histogram has no single value; Grafana cannot draw it in these panels either.
      return result.filter(({ value }) => value).map(({ metric, value }) => ({ metric, samples: [value] }));
    case 'scalar':
      return [{ metric: {}, samples: [result] }];
    default:
      throw new Error(`an answer of type "${resultType}" is not drawn`);
  }
}

/** All series of one query as rows: the time, a column per label, the value. */
function tableFrame(refId, series, valueName) {
  const labels = [...new Set(series.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const rows = series.flatMap(({ metric, samples }) => samples.map(([time, value]) => ({ metric, time, value })));
  rows.sort((a, b) => a.time - b.time);
  return createDataFrame({
    refId,
    meta: { preferredVisualisationType: 'rawPrometheus' },
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: rows.map(({ time }) => Math.round(time * 1000)) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        config: { filterable: true },
        values: rows.map(({ metric }) => metric[label] ?? ''),
      })),
      { name: valueName, type: FieldType.number, config: {}, values: rows.map(({ value }) => number(value)) },
    ],
  });
}

/**
 * Of the exemplars of one step those that stand apart: the highest, then each that lies two standard deviations below
 * the one kept before it. Without this a busy service draws a carpet.
 */
export function sampleExemplars(exemplars, step) {
  const values = exemplars.map(({ value }) => value);
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1));
  const steps = new Map();
  for (const exemplar of exemplars) {
    const at = Math.floor(exemplar.time / step);
    steps.set(at, [...(steps.get(at) ?? []), exemplar]);
  }
  const kept = [];
  for (const group of steps.values()) {
    group.sort((a, b) => b.value - a.value);
    let last = null;
    for (const exemplar of group) {
      if (last === null || last.value - exemplar.value > 2 * deviation) {
        kept.push(exemplar);
        last = exemplar;
      }
    }
  }
  return kept.sort((a, b) => a.time - b.time);
}

async function exemplarsOf(expression, range, step) {
  const answer = await client.exemplars(expression, seconds(range.from), seconds(range.to));
  const all = answer.flatMap(({ seriesLabels, exemplars }) =>
    exemplars.map(({ labels, value, timestamp }) => ({
      time: Math.round(timestamp * 1000),
      value: number(value),
      labels: { ...seriesLabels, ...labels },
    }))
  );
  return sampleExemplars(all, step);
}

/**
 * Runs the queries of one panel.
 *
 * Returns `{ frames, exemplars, queries }`. `queries` tells per query what was asked, the seconds it took, the number of
 * series and points, and the error if there was one.
 */
export async function runQueries(panel, width, range, variables, scrapeInterval) {
  const targets = (panel.targets ?? []).filter((target) => !target.hide);
  const answers = await Promise.all(
    targets.map(async (target) => {
      const written = interpolate(target.interval || panel.interval, variables);
      const { step, scoped } = stepOf(range, panel.maxDataPoints ?? width, written, scrapeInterval);
      const expr = interpolate(target.expr ?? '', variables, scoped, forPromql);
      const legendFormat = interpolate(target.legendFormat, variables, scoped);
      // A target that names neither kind is a range query.
      const wantsRange = target.range || !target.instant;
      const query = { refId: target.refId, expr, step: step / 1000, series: 0, points: 0, seconds: 0, error: null };
      const answer = { target, legendFormat, step, query, series: [], exemplars: [] };
      const started = performance.now();
      try {
        if (wantsRange) {
          const start = Math.floor(range.from.valueOf() / step) * step;
          const end = Math.floor(range.to.valueOf() / step) * step;
          answer.series.push(...asSeries(await client.range(expr, start / 1000, end / 1000, step / 1000)));
        }
        if (target.instant) {
          answer.series.push(...asSeries(await client.instant(expr, seconds(range.to))));
        }
        if (target.exemplar && wantsRange) {
          answer.exemplars = await exemplarsOf(expr, range, step);
        }
      } catch (error) {
        query.error = `${target.refId}: ${error.message}`;
      }
      query.seconds = Math.round(performance.now() - started) / 1000;
      query.series = answer.series.length;
      query.points = answer.series.reduce((sum, { samples }) => sum + samples.length, 0);
      return answer;
    })
  );
  // A query without an answer gives a frame without rows; one that failed gives none.
  const answered = answers.filter(({ query }) => query.error === null);
  const isTable = ({ target }) => target.format === 'table';
  const tables = answered.filter(isTable);
  const frames = answered.flatMap((answer) => {
    const { target, series, step, legendFormat, query } = answer;
    const isEmpty = series.length === 0;
    if (isTable(answer) && !(isEmpty && tables.length === 1)) {
      return [tableFrame(target.refId, series, tables.length > 1 ? `Value #${target.refId}` : 'Value')];
    }
    if (isEmpty) {
      return [createDataFrame({ refId: target.refId, fields: [] })];
    }
    return series.map(({ metric, samples }) =>
      seriesFrame(target.refId, metric, samples, step, legendOf(legendFormat, metric, query.expr), legendFormat === '__auto')
    );
  });
  return { frames, exemplars: answers.flatMap((answer) => answer.exemplars), queries: answers.map(({ query }) => query) };
}

// === Annotations ===

/**
 * Runs one annotation of the dashboard: each stretch of samples above zero is an event.
 *
 * Returns events with `time` and `timeEnd` in milliseconds, `title` and `text`.
 */
export async function runAnnotation(annotation, range, variables) {
  const stepText = annotation.step || ANNOTATION_STEP;
  const step = rangeUtil.intervalToMs(stepText);
  const { scoped } = stepOf(range, MOST_STEPS, stepText, stepText);
  const expr = interpolate(annotation.expr ?? annotation.target?.expr ?? '', variables, scoped, forPromql);
  const start = Math.floor(range.from.valueOf() / step) * step;
  const end = Math.floor(range.to.valueOf() / step) * step;
  const series = asSeries(await client.range(expr, start / 1000, end / 1000, step / 1000));
  const fill = (template, metric) => (template ?? '').replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => metric[label] ?? '');
  const useValue = annotation.useValueForTime === true || annotation.useValueForTime === 'on';
  return series.flatMap(({ metric, samples }) => {
    const times = samples
      .filter(([, value]) => number(value) > 0)
      .map(([time, value]) => Math.floor(useValue ? number(value) : time * 1000));
    const events = [];
    for (const time of times) {
      const open = events.at(-1);
      if (open && time <= open.timeEnd + step) {
        open.timeEnd = time;
      } else {
        events.push({ time, timeEnd: time, title: fill(annotation.titleFormat, metric), text: fill(annotation.textFormat, metric) });
      }
    }
    return events.filter((event) => event.timeEnd >= range.from.valueOf() && event.time <= range.to.valueOf());
  });
}
