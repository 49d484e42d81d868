// Bundles the page. `bundle()` does nothing when the bundle is newer than all that goes into it.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const HERE = dirname(fileURLToPath(import.meta.url));
/** Everything that is fetched or built lies here, below the ignored directory. */
export const HOME = join(HERE, '../../target/render');
export const BUNDLE = join(HOME, 'bundle/main.js');

export async function bundle() {
  const sources = readdirSync(join(HERE, 'src')).map((name) => join(HERE, 'src', name));
  const inputs = [...sources, join(HERE, 'build.mjs'), join(HOME, 'package-lock.json')];
  const newest = Math.max(...inputs.filter(existsSync).map((path) => statSync(path).mtimeMs));
  if (existsSync(BUNDLE) && statSync(BUNDLE).mtimeMs > newest) {
    return;
  }
  const esbuild = createRequire(join(HOME, 'package.json'))('esbuild');
  await esbuild.build({
    entryPoints: [join(HERE, 'src/main.jsx')],
    outfile: BUNDLE,
    bundle: true,
    minify: true,
    format: 'iife',
    jsx: 'automatic',
    target: 'chrome120',
    // The packages lie beside the bundle, not beside the sources.
    nodePaths: [join(HOME, 'node_modules')],
    define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'window' },
    loader: { '.svg': 'text', '.woff2': 'empty', '.ttf': 'empty' },
    logLevel: 'warning',
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await bundle();
}
