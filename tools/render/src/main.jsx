// Draws the dashboard that the server's `/job.json` names, then leaves a report for the program that looks at the page.

import { createTheme, dateTime, locationUtil, rangeUtil, ThemeContext } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import { Dashboard, layOut, unknownKind } from './dashboard.jsx';
import { countPoints, loadPanel } from './data.js';
import { measure } from './measure.js';
import { client, runAnnotation } from './prometheus.js';
import { namesOf } from './timeseries.jsx';
import { resolveVariables } from './variables.js';

/** The page is still when no request has been under way for this long; icons come late. */
const STILL_MS = 300;

let pending = 0;
let lastChange = performance.now();
const plainFetch = window.fetch.bind(window);
window.fetch = async (...parameters) => {
  pending += 1;
  try {
    return await plainFetch(...parameters);
  } finally {
    pending -= 1;
    lastChange = performance.now();
  }
};

const frame = () => new Promise((done) => requestAnimationFrame(done));

async function stillness() {
  lastChange = performance.now();
  while (pending > 0 || performance.now() - lastChange < STILL_MS) {
    await frame();
  }
}

/** Charts and big values measure their texts before they draw, and never again. */
async function loadFonts() {
  for (const font of ['12px Inter', '500 12px Inter', '12px "Roboto Mono"']) {
    // The faces are part of the styles, which React writes in its own time.
    while ((await document.fonts.load(font)).length === 0) {
      await frame();
    }
  }
}

async function loadAnnotations(dashboard, range, variables) {
  const wanted = (dashboard.annotations?.list ?? []).filter(({ builtIn, enable, datasource }) => !builtIn && enable && datasource?.uid !== '-- Grafana --');
  return Promise.all(
    wanted.map(async (annotation) => {
      const { filter } = annotation;
      const loaded = {
        name: annotation.name,
        color: annotation.iconColor ?? 'red',
        hide: annotation.hide ?? false,
        panels: (id) => !filter?.ids?.length || filter.ids.includes(id) !== Boolean(filter.exclude),
        events: [],
        error: null,
      };
      try {
        loaded.events = await runAnnotation(annotation, range, variables);
      } catch (error) {
        loaded.error = `annotation ${annotation.name}: ${error.message}`;
      }
      return loaded;
    })
  );
}

async function draw() {
  const job = await (await plainFetch('/job.json')).json();
  const { dashboard, now, rangeText, width, chosen, scrapeInterval, annotationNames } = job;
  initPluginTranslations('render');
  locationUtil.initialize({
    config: { appSubUrl: '', appUrl: location.href },
    getVariablesUrlParams: () => ({}),
    getTimeRangeForUrl: () => ({ from: `now-${rangeText}`, to: 'now' }),
  });
  const to = dateTime(now * 1000);
  const from = dateTime(now * 1000 - rangeUtil.intervalToMs(rangeText));
  const range = { from, to, raw: { from: `now-${rangeText}`, to: 'now' } };
  const theme = createTheme({ colors: { mode: job.theme } });

  const root = createRoot(document.getElementById('root'));
  const show = (page) =>
    root.render(
      <ThemeContext.Provider value={theme}>
        <GlobalStyles />
        {page}
      </ThemeContext.Provider>
    );
  show(null);
  await loadFonts();

  const { variables, errors } = await resolveVariables(dashboard.templating?.list ?? [], chosen, client, range);
  const places = layOut(dashboard.panels ?? [], width);
  const loaded = new Map();
  const [annotations] = await Promise.all([
    loadAnnotations(dashboard, range, variables),
    ...places.map(async ({ panel, innerWidth }) => {
      loaded.set(panel.id, await loadPanel(panel, innerWidth, range, variables, theme, scrapeInterval));
    }),
  ]);
  const failures = new Map();
  const onError = (id, message) => failures.set(id, [...(failures.get(id) ?? []), message]);
  // Grafana's button: "Last 15 minutes" of the present, both ends of the past.
  const described = rangeUtil.describeTimeRange(job.live ? range.raw : { from, to });
  show(
    <Dashboard
      dashboard={dashboard}
      others={job.others}
      places={places}
      loaded={loaded}
      variables={variables}
      annotations={annotations}
      range={range}
      rangeText={described}
      withNames={annotationNames}
      onError={onError}
    />
  );
  await frame();
  await stillness();

  window.height = () => Math.ceil(document.getElementById('root').getBoundingClientRect().height);
  window.settle = stillness;
  window.report = () => {
    const measured = measure();
    return {
      uid: dashboard.uid ?? null,
      title: dashboard.title,
      variables: Object.values(variables).map(({ name, text, options }) => ({ name, text, options: options.length })),
      errors: [...errors, ...annotations.map(({ error }) => error).filter(Boolean)],
      annotations: annotations.map(({ name, events }) => ({ name, events: events.length })),
      panels: places.map(({ panel }) => {
        const { frames, exemplars, queries, errors: problems } = loaded.get(panel.id);
        const unknown = unknownKind(panel);
        return {
          id: panel.id,
          title: panel.title ?? '',
          type: panel.type,
          collapsed: panel.type === 'row' ? Boolean(panel.collapsed) : undefined,
          series: queries.reduce((sum, { series }) => sum + series, 0),
          points: countPoints(frames),
          exemplars: exemplars.length,
          names: panel.type === 'timeseries' ? namesOf(frames) : undefined,
          errors: [...problems, ...(unknown ? [unknown] : []), ...(failures.get(panel.id) ?? [])],
          ...measured[panel.id],
          queries,
        };
      }),
    };
  };
}

window.drawn = draw();
