// From a panel of the file to what its drawing takes: queries, transformations, field configuration.

import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  FieldType,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { firstValueFrom } from 'rxjs';
import { fieldConfigOf } from './fieldconfig.js';
import { runQueries } from './prometheus.js';
import { forReaders, interpolate, linkVariables, timeVariables } from './variables.js';

// `seriesToColumns` is the old name of `joinByField`: the same object, twice in the list.
standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((transformer) => ({
    id: transformer.id,
    name: transformer.name,
    transformation: async () => transformer,
    editor: () => null,
  }))
);

/** Panels that ask nothing. */
const WITHOUT_QUERIES = new Set(['row', 'text']);

export async function loadPanel(panel, width, range, variables, theme, scrapeInterval) {
  const replaceVariables = (text, scoped) =>
    interpolate(text, variables, { ...timeVariables(range), ...linkVariables(scoped, variables, range), ...scoped }, forReaders);
  const empty = { frames: [], exemplars: [], queries: [], errors: [], replaceVariables };
  if (WITHOUT_QUERIES.has(panel.type)) {
    return empty;
  }
  const { frames, exemplars, queries } = await runQueries(panel, width, range, variables, scrapeInterval);
  const errors = queries.map(({ error }) => error).filter(Boolean);
  let shaped = frames;
  try {
    shaped = await transform(frames, panel.transformations ?? [], replaceVariables);
  } catch (error) {
    errors.push(`transformations: ${error.message}`);
  }
  const { fieldConfig, fieldConfigRegistry } = fieldConfigOf(panel);
  const drawn = applyFieldOverrides({
    data: shaped,
    fieldConfig,
    fieldConfigRegistry,
    replaceVariables,
    theme,
    timeZone: 'browser',
  });
  // Tables head their columns with these.
  cacheFieldDisplayNames(drawn);
  return { frames: drawn, exemplars, queries, errors, fieldConfig, replaceVariables };
}

async function transform(frames, transformations, replaceVariables) {
  const active = transformations.filter(({ disabled }) => !disabled);
  for (const { id } of active) {
    if (!standardTransformersRegistry.getIfExists(id)) {
      throw new Error(`"${id}" is not one of @grafana/data`);
    }
  }
  return active.length === 0 ? frames : firstValueFrom(transformDataFrame(active, frames, { interpolate: replaceVariables }));
}

/** Samples that are numbers, over all frames. */
export function countPoints(frames) {
  let points = 0;
  for (const { fields } of frames) {
    for (const field of fields) {
      if (field.type === FieldType.number) {
        points += field.values.filter((value) => Number.isFinite(value)).length;
      }
    }
  }
  return points;
}
