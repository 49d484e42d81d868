// Draws dashboards with Grafana's own drawing code from a live Prometheus, and writes pictures and a report.
//
//   node tools/render/render.mjs --prometheus http://127.0.0.1:9090 --dashboards DIR --out DIR
//        [--theme light|dark|both] [--now UNIX] [--range 15m] [--var NAME=VALUE]... [--width 1440]
//        [--scrape-interval 15s] [--annotation-names] [--panels]
//
// `--panels` writes every panel as a picture of its own too, to look at it closely.
// `README.md` beside this file says what is Grafana's and what is ours. Exit status: 0 drawn, 1 a panel, a variable or
// an annotation failed (the report names it), 2 could not run.

import { createServer, request } from 'node:http';
import { createReadStream, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, extname, join, normalize } from 'node:path';
import { parseArgs } from 'node:util';
import { BUNDLE, bundle, HOME } from './build.mjs';
import { Chromium } from './chromium.mjs';

const MODULES = join(HOME, 'node_modules');
/** A page is drawn in a few seconds; longer than this is a hang. */
const DRAW_MS = 50_000;
/** The height before the page's own height is known. */
const FIRST_HEIGHT = 900;

const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

/** Grafana's addresses of assets, and where they lie in the packages. */
const ASSETS = [
  ['/public/build/img/', join(MODULES, '@grafana/ui/dist/public/img')],
  ['/public/fonts/inter/', join(MODULES, 'inter-ui/web')],
];
const PAGES = {
  '/main.js': BUNDLE,
  '/main.css': BUNDLE.replace(/\.js$/, '.css'),
};
/** All of Grafana's addresses of the monospaced font, which carry a hash: one file. */
const MONO = join(MODULES, '@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2');

const PAGE = `<!doctype html>
<meta charset="utf-8">
<link rel="stylesheet" href="/main.css">
<body style="margin:0"><div id="root"></div>
<script>window.__grafana_public_path__ = '/public/';</script>
<script src="/main.js"></script>`;

function options() {
  const { values } = parseArgs({
    options: {
      prometheus: { type: 'string' },
      dashboards: { type: 'string' },
      out: { type: 'string' },
      theme: { type: 'string', default: 'both' },
      now: { type: 'string' },
      range: { type: 'string', default: '15m' },
      var: { type: 'string', multiple: true, default: [] },
      width: { type: 'string', default: '1440' },
      'scrape-interval': { type: 'string', default: '15s' },
      'annotation-names': { type: 'boolean', default: false },
      panels: { type: 'boolean', default: false },
    },
  });
  for (const name of ['prometheus', 'dashboards', 'out']) {
    if (!values[name]) {
      throw new Error(`--${name} is missing`);
    }
  }
  const themes = { light: ['light'], dark: ['dark'], both: ['light', 'dark'] }[values.theme];
  if (!themes) {
    throw new Error(`--theme ${values.theme}: light, dark or both`);
  }
  const now = values.now === undefined ? Math.floor(Date.now() / 1000) : Number(values.now);
  if (!Number.isFinite(now)) {
    throw new Error(`--now ${values.now}: seconds since 1970`);
  }
  for (const name of ['range', 'scrape-interval']) {
    if (!/^\d+(ms|[smhdw])$/.test(values[name])) {
      throw new Error(`--${name} ${values[name]}: a duration such as 15m`);
    }
  }
  const width = Number(values.width);
  if (!(width >= 320)) {
    throw new Error(`--width ${values.width}: pixels, at least 320`);
  }
  const chosen = {};
  for (const item of values.var) {
    const at = item.indexOf('=');
    if (at < 1) {
      throw new Error(`--var ${item}: NAME=VALUE`);
    }
    // Several values of one variable: the option several times.
    (chosen[item.slice(0, at)] ??= []).push(item.slice(at + 1));
  }
  return { ...values, prometheus: new URL(values.prometheus), themes, now, live: values.now === undefined, width, chosen };
}

function dashboardsIn(path) {
  const files = statSync(path).isDirectory()
    ? readdirSync(path).filter((name) => name.endsWith('.json')).sort().map((name) => join(path, name))
    : [path];
  if (files.length === 0) {
    throw new Error(`${path}: no .json file`);
  }
  return files.map((file) => {
    try {
      return { file, dashboard: JSON.parse(readFileSync(file, 'utf8')) };
    } catch (error) {
      throw new Error(`${file}: ${error.message}`);
    }
  });
}

/** Serves the page, the packages' fonts and icons, and passes Prometheus' interface on: one origin for all. */
function serve(prometheus, job) {
  const server = createServer((incoming, outgoing) => {
    const { pathname, search } = new URL(incoming.url, 'http://localhost');
    const send = (type, body) => outgoing.writeHead(200, { 'content-type': type }).end(body);
    if (pathname === '/') {
      send('text/html', PAGE);
    } else if (pathname === '/job.json') {
      send('application/json', JSON.stringify(job()));
    } else if (pathname.startsWith('/api/v1/')) {
      const base = prometheus.pathname.replace(/\/$/, '');
      const asked = request(
        { host: prometheus.hostname, port: prometheus.port || 80, path: `${base}${pathname}${search}` },
        (answer) => {
          outgoing.writeHead(answer.statusCode, { 'content-type': answer.headers['content-type'] ?? 'application/json' });
          answer.pipe(outgoing);
        }
      );
      asked.on('error', (error) => outgoing.writeHead(502).end(JSON.stringify({ status: 'error', error: error.message })));
      asked.end();
    } else {
      const file = assetOf(pathname);
      if (file && existsSync(file)) {
        outgoing.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
        createReadStream(file).pipe(outgoing);
      } else {
        outgoing.writeHead(404).end();
      }
    }
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

function assetOf(pathname) {
  if (PAGES[pathname]) {
    return PAGES[pathname];
  }
  if (pathname.startsWith('/public/fonts/roboto')) {
    return MONO;
  }
  const [prefix, directory] = ASSETS.find(([start]) => pathname.startsWith(start)) ?? [];
  const rest = prefix && normalize(decodeURIComponent(pathname.slice(prefix.length)));
  return rest && !rest.startsWith('..') ? join(directory, rest) : undefined;
}

function within(promise, milliseconds, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${milliseconds / 1000} s`)), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function main() {
  const settings = options();
  const files = dashboardsIn(settings.dashboards);
  if (!existsSync(MODULES)) {
    throw new Error(`${MODULES} is missing; README.md says how it is fetched`);
  }
  await bundle();
  mkdirSync(settings.out, { recursive: true });

  const others = files.map(({ dashboard: { uid, title, tags = [] } }) => ({ uid, title, tags }));
  let job;
  const server = await serve(settings.prometheus, () => job);
  const address = `http://127.0.0.1:${server.address().port}/`;
  const browser = await Chromium.start();
  const complaints = [];
  browser.onEvent(({ method, params }) => {
    if (method === 'Runtime.exceptionThrown') {
      complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    }
  });
  const report = {
    prometheus: settings.prometheus.href,
    now: settings.now,
    range: settings.range,
    width: settings.width,
    dashboards: [],
  };
  let failures = 0;
  try {
    for (const { file, dashboard } of files) {
      for (const theme of settings.themes) {
        job = {
          dashboard,
          others,
          theme,
          now: settings.now,
          live: settings.live,
          rangeText: settings.range,
          width: settings.width,
          chosen: settings.chosen,
          scrapeInterval: settings['scrape-interval'],
          annotationNames: settings['annotation-names'],
        };
        const started = Date.now();
        await browser.size(settings.width, FIRST_HEIGHT);
        await browser.open(address);
        await within(browser.evaluate('window.drawn'), DRAW_MS, `drawing ${file}`);
        const height = await browser.evaluate('window.height()');
        await browser.size(settings.width, height);
        await browser.evaluate('window.settle()');
        const drawn = await browser.evaluate('window.report()');
        const picture = `${basename(file, '.json')}-${theme}.png`;
        writeFileSync(join(settings.out, picture), await browser.picture());
        for (const { id, type, box } of settings.panels ? drawn.panels : []) {
          if (type !== 'row') {
            writeFileSync(join(settings.out, picture.replace('.png', `-${id}.png`)), await browser.picture(box));
          }
        }
        const seconds = (Date.now() - started) / 1000;
        const entry = { file: basename(file), theme, picture, width: settings.width, height, seconds, ...drawn };
        entry.errors.push(...complaints.splice(0));
        report.dashboards.push(entry);
        failures += tell(entry);
      }
    }
  } finally {
    await browser.close();
    server.close();
    server.closeAllConnections();
    writeFileSync(join(settings.out, 'report.json'), `${JSON.stringify(report, null, 2)}\n`);
  }
  process.exitCode = failures > 0 ? 1 : 0;
}

/** Prints one picture's line and what is wrong with it; returns the number of errors. */
function tell({ picture, width, height, seconds, panels, errors }) {
  console.log(`${picture}: ${width}x${height}, ${panels.length} panels, ${seconds.toFixed(1)} s`);
  const problems = errors.map((error) => `  error: ${error}`);
  const remarks = [];
  for (const { id, title, errors: own, noData, overflow } of panels) {
    problems.push(...own.map((error) => `  error: panel ${id} "${title}": ${error}`));
    if (noData) {
      remarks.push(`  no data: panel ${id} "${title}"`);
    }
    for (const { text, pixels, direction } of (overflow ?? []).filter(({ scrolled }) => !scrolled)) {
      remarks.push(`  cut off: panel ${id} "${title}": "${text}" by ${pixels} px ${direction}`);
    }
    const scrolled = (overflow ?? []).filter((cut) => cut.scrolled);
    if (scrolled.length > 0) {
      const texts = scrolled.slice(0, 3).map(({ text }) => `"${text}"`).join(', ');
      remarks.push(`  scrolled: panel ${id} "${title}": ${scrolled.length} texts are seen only by scrolling: ${texts}`);
    }
  }
  [...problems, ...remarks].forEach((line) => console.log(line));
  return problems.length;
}

main().catch((error) => {
  console.error(`render: ${error.message}`);
  process.exitCode = 2;
});
