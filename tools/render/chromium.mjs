// A headless Chromium, spoken to by the DevTools protocol over a pair of pipes: no port, no package.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

/** An answer that takes longer means that the browser hangs. */
const ANSWER_MS = 60_000;
/** How long a browser that was asked to close may take before it is killed. */
const CLOSE_MS = 5_000;

const NAMES = ['chromium', 'chromium-browser', 'google-chrome'];

function find() {
  const places = (process.env.PATH ?? '').split(delimiter).concat('/usr/bin');
  for (const name of NAMES) {
    const found = places.map((place) => join(place, name)).find(existsSync);
    if (found) {
      return found;
    }
  }
  throw new Error(`no browser: none of ${NAMES.join(', ')} is on the path (Debian's package is chromium)`);
}

export class Chromium {
  #child;
  #profile;
  #next = 0;
  #waiting = new Map();
  #listeners = [];
  #session;
  #rest = '';
  #errors = '';

  static async start() {
    const browser = new Chromium();
    await browser.#open();
    return browser;
  }

  async #open() {
    this.#profile = mkdtempSync(join(tmpdir(), 'render-'));
    const flags = [
      '--headless=new',
      // Containers run this as root, where the sandbox cannot start; only our own page is opened.
      '--no-sandbox',
      '--remote-debugging-pipe',
      '--disable-gpu',
      '--disable-dev-shm-usage',
      '--disable-extensions',
      '--disable-background-networking',
      '--no-first-run',
      '--hide-scrollbars',
      // The same letters on every machine.
      '--font-render-hinting=none',
      '--disable-lcd-text',
      '--force-color-profile=srgb',
      `--user-data-dir=${this.#profile}`,
      'about:blank',
    ];
    this.#child = spawn(find(), flags, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], env: { ...process.env, TZ: 'UTC' } });
    this.#child.stderr.on('data', (data) => (this.#errors = (this.#errors + data).slice(-2000)));
    this.#child.on('exit', (code) => this.#failAll(`the browser ended (${code}): ${this.#errors}`));
    this.#child.on('error', (error) => this.#failAll(error.message));
    this.#child.stdio[3].on('error', (error) => this.#failAll(error.message));
    this.#child.stdio[4].setEncoding('utf8');
    this.#child.stdio[4].on('data', (data) => this.#read(data));
    const { targetInfos } = await this.#send('Target.getTargets', {}, null);
    const page = targetInfos.find(({ type }) => type === 'page') ?? (await this.#send('Target.createTarget', { url: 'about:blank' }, null));
    const { sessionId } = await this.#send('Target.attachToTarget', { targetId: page.targetId, flatten: true }, null);
    this.#session = sessionId;
    await this.send('Page.enable');
    await this.send('Runtime.enable');
  }

  #failAll(reason) {
    for (const { reject } of this.#waiting.values()) {
      reject(new Error(reason));
    }
    this.#waiting.clear();
  }

  /** Messages end with a zero byte. */
  #read(data) {
    const parts = (this.#rest + data).split('\0');
    this.#rest = parts.pop();
    for (const part of parts) {
      const message = JSON.parse(part);
      if (message.id === undefined) {
        this.#listeners.forEach((listen) => listen(message));
        continue;
      }
      const waiter = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if (message.error) {
        waiter?.reject(new Error(`${message.error.message} ${message.error.data ?? ''}`));
      } else {
        waiter?.resolve(message.result);
      }
    }
  }

  #send(method, params, sessionId) {
    const id = ++this.#next;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Error(`the browser did not answer ${method} in ${ANSWER_MS / 1000} s`));
      }, ANSWER_MS);
      const settle = (then) => (value) => {
        clearTimeout(timer);
        then(value);
      };
      this.#waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
      this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, ...(sessionId && { sessionId }) })}\0`);
    });
  }

  send(method, params = {}) {
    return this.#send(method, params, this.#session);
  }

  onEvent(listen) {
    this.#listeners.push(listen);
  }

  /** Value of an expression; waits for it if it is a promise. */
  async evaluate(expression) {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) {
      throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    }
    return result.value;
  }

  async size(width, height) {
    await this.send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: false });
  }

  async open(url) {
    const loaded = new Promise((done) => this.onEvent(({ method }) => method === 'Page.loadEventFired' && done()));
    const { errorText } = await this.send('Page.navigate', { url });
    if (errorText) {
      throw new Error(`${url}: ${errorText}`);
    }
    await loaded;
  }

  /** PNG of the whole page, or of a part: `{ x, y, width, height }`. */
  async picture(part) {
    const { data } = await this.send('Page.captureScreenshot', { format: 'png', ...(part && { clip: { ...part, scale: 1 } }) });
    return Buffer.from(data, 'base64');
  }

  async close() {
    const ended = new Promise((done) => this.#child.once('exit', done));
    this.#send('Browser.close', {}, null).catch(() => {});
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_MS);
    await ended;
    clearTimeout(timer);
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
