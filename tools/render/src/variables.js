// Template variables: what their values are, and how they are written into queries and titles.
//
// The rules are Grafana's: a variable that may have several values is quoted as a regular expression in PromQL, "All"
// is the `allValue` as it stands, an unknown name is left alone.

const PATTERN = /\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\$\{(\w+)(?:\.([^:^}]+))?(?::([^}]+))?\}/g;

export const ALL = '$__all';

/** A backslash and a quote, inside a PromQL string in quotes. */
function quotePlain(value) {
  return String(value).replace(/\\/g, '\\\\').replace(/'/g, "\\'");
}

/** The signs of a regular expression, inside a PromQL string: hence two backslashes per sign. */
function quoteRegex(value) {
  return String(value)
    .replace(/\\/g, '\\\\\\\\')
    .replace(/[$^*{}[\]'+?.()|]/g, '\\\\$&');
}

/** A value as PromQL wants it: plain for a single choice, one alternative of a regular expression otherwise. */
export function promqlValue(variable, value) {
  if (variable.isAll && variable.allValue) {
    return variable.allValue;
  }
  if (!variable.multi && !variable.includeAll) {
    return quotePlain(Array.isArray(value) ? value[0] : value);
  }
  const quoted = (Array.isArray(value) ? value : [value]).map(quoteRegex);
  return quoted.length === 1 ? quoted[0] : `(${quoted.join('|')})`;
}

function format(variable, value, name) {
  const list = Array.isArray(value) ? value : [value];
  if (variable.isAll && variable.allValue && name !== 'text') {
    return variable.allValue;
  }
  switch (name) {
    case 'raw':
    case 'csv':
      return list.join(',');
    case 'pipe':
      return list.join('|');
    case 'regex':
      return list.length === 1 ? escapeRegex(list[0]) : `(${list.map(escapeRegex).join('|')})`;
    case 'text':
      return variable.text;
    case 'percentencode':
      return encodeURIComponent(list.length === 1 ? list[0] : `{${list.join(',')}}`);
    case 'queryparam':
      return list.map((item) => `var-${variable.name}=${encodeURIComponent(item)}`).join('&');
    case 'doublequote':
      return list.map((item) => `"${String(item).replace(/"/g, '\\"')}"`).join(',');
    default:
      return list.length === 1 ? String(list[0]) : `{${list.join(',')}}`;
  }
}

function escapeRegex(value) {
  return String(value).replace(/[\\^$*+?.()|[\]{}/]/g, '\\$&');
}

/**
 * Writes values in the place of names.
 *
 * @param text what holds the names
 * @param variables values by name
 * @param scoped values of the query or the field, by name; they win
 * @param toText how a variable without a format of its own is written
 */
export function interpolate(text, variables, scoped = {}, toText = (variable) => format(variable, variable.value)) {
  if (typeof text !== 'string') {
    return text;
  }
  return text.replace(PATTERN, (match, plain, square, squareFormat, braced, path, bracedFormat) => {
    const name = plain ?? square ?? braced;
    if (Object.hasOwn(scoped, name)) {
      let found = scoped[name].value;
      for (const part of path ? partsOf(path) : []) {
        found = found?.[part];
      }
      if (found === undefined || found === null) {
        return match;
      }
      return (squareFormat ?? bracedFormat) === 'percentencode' ? encodeURIComponent(found) : String(found);
    }
    const variable = variables[name];
    if (!variable) {
      return match;
    }
    const wanted = squareFormat ?? bracedFormat;
    return wanted ? format(variable, variable.value, wanted) : toText(variable);
  });
}

/** `fields.Route`, `fields["Value #A"]` and `fields[0]` in their parts. */
function partsOf(path) {
  return path.split(/\.|\["|"\]|\[|\]/).filter(Boolean);
}

/** What a link of a field may name: the row's other values, the field's labels, the choice of variables, the time. */
export function linkVariables(scoped, variables, range) {
  const chosen = Object.values(variables).flatMap(({ name, value, isAll }) =>
    isAll ? [`var-${name}=${ALL}`] : [].concat(value).map((item) => `var-${name}=${encodeURIComponent(item)}`)
  );
  const found = {
    __all_variables: { value: chosen.join('&') },
    __url_time_range: { value: `from=${range.from.valueOf()}&to=${range.to.valueOf()}` },
  };
  const { frame, field, rowIndex } = scoped?.__dataContext?.value ?? {};
  if (field) {
    const text = (other) => other.display?.(other.values[rowIndex]).text ?? other.values[rowIndex];
    const fields = {};
    frame.fields.forEach((other, index) => {
      const own = rowIndex === undefined ? undefined : text(other);
      for (const name of [index, other.name, other.config.displayName, other.state?.displayName]) {
        fields[name] ??= own;
      }
    });
    found.__data = { value: { fields } };
    found.__field = { value: { name: field.state?.displayName ?? field.name, labels: field.labels ?? {} } };
    found.__series = { value: { name: frame.name ?? '' } };
    if (rowIndex !== undefined) {
      found.__value = { value: { raw: field.values[rowIndex], text: text(field), numeric: Number(field.values[rowIndex]) } };
    }
  }
  return found;
}

export const forPromql = (variable) => promqlValue(variable, variable.value);
/** In titles and texts: what a reader sees in the control. */
export const forReaders = (variable) => variable.text;

/** Times as variables: `$__from` and `$__to` in milliseconds, `$__range` in its three spellings. */
export function timeVariables(range) {
  const milliseconds = range.to.valueOf() - range.from.valueOf();
  const seconds = Math.round(milliseconds / 1000);
  return {
    __from: { value: range.from.valueOf() },
    __to: { value: range.to.valueOf() },
    __range: { value: `${seconds}s` },
    __range_s: { value: seconds },
    __range_ms: { value: milliseconds },
  };
}

/** `label_values(...)` and its kin, run at Prometheus. Returns texts. */
async function valuesOf(query, client, range) {
  const call = /^\s*(\w+)\s*\(([\s\S]*)\)\s*$/.exec(query);
  const [, name, inner] = call ?? [];
  switch (name) {
    case 'label_names':
      return client.labelNames(inner.trim(), range);
    case 'label_values': {
      const comma = inner.lastIndexOf(',');
      // A comma inside the selector's braces separates matchers, not arguments.
      const alone = comma < 0 || comma < inner.lastIndexOf('}');
      return client.labelValues(alone ? inner.trim() : inner.slice(comma + 1).trim(), alone ? '' : inner.slice(0, comma).trim(), range);
    }
    case 'metrics': {
      const wanted = new RegExp(inner.trim());
      return (await client.labelValues('__name__', '', range)).filter((metric) => wanted.test(metric));
    }
    case 'query_result': {
      const { result } = await client.instant(inner, range.to.valueOf() / 1000);
      return result.map(({ metric, value }) => {
        const { __name__ = '', ...labels } = metric;
        const written = Object.entries(labels).map(([label, text]) => `${label}="${text}"`);
        return `${__name__}{${written.join(',')}} ${value[1]} ${value[0] * 1000}`;
      });
    }
    default:
      // Any other text is a selector: its series.
      return client.series(query, range);
  }
}

/** The variable's `regex` keeps and cuts options: its first group, or the groups `text` and `value`. */
function applyRegex(values, regex) {
  if (!regex) {
    return values.map((value) => ({ text: value, value }));
  }
  const [, body, flags] = /^\/([\s\S]*)\/(\w*)$/.exec(regex) ?? [null, `^${regex}$`, ''];
  const pattern = new RegExp(body, flags.replace('g', ''));
  const options = [];
  for (const value of values) {
    const found = pattern.exec(value);
    if (found) {
      const cut = found.groups?.value ?? found.groups?.text ?? found[1] ?? found[0];
      options.push({ text: found.groups?.text ?? cut, value: cut });
    }
  }
  return options.filter((option, at) => options.findIndex((other) => other.value === option.value) === at);
}

function sortOptions(options, sort) {
  const number = (text) => parseFloat(/\d+(\.\d+)?/.exec(text)?.[0] ?? 'NaN');
  const orders = {
    1: (a, b) => (a.text < b.text ? -1 : 1),
    3: (a, b) => number(a.text) - number(b.text),
    5: (a, b) => (a.text.toLowerCase() < b.text.toLowerCase() ? -1 : 1),
    7: (a, b) => a.text.localeCompare(b.text, undefined, { numeric: true }),
  };
  // Even numbers are the order before them, reversed.
  const order = orders[sort % 2 === 0 ? sort - 1 : sort];
  const sorted = order ? [...options].sort(order) : options;
  return order && sort % 2 === 0 ? sorted.reverse() : sorted;
}

function splitCustom(query) {
  return query.split(',').map((part) => {
    const [text, value = text] = part.trim().split(' : ');
    return { text: text.trim(), value: value.trim() };
  });
}

async function optionsOf(definition, variables, client, range) {
  switch (definition.type) {
    case 'datasource':
      return [{ text: 'Prometheus', value: 'prometheus' }];
    case 'query': {
      const query = typeof definition.query === 'string' ? definition.query : (definition.query?.query ?? '');
      const written = interpolate(query, variables, timeVariables(range), forPromql);
      return sortOptions(applyRegex(await valuesOf(written, client, range), definition.regex), definition.sort ?? 0);
    }
    case 'custom':
    case 'interval':
      return splitCustom(String(definition.query ?? ''));
    case 'constant':
    case 'textbox':
      return [{ text: String(definition.query ?? ''), value: String(definition.query ?? '') }];
    default:
      throw new Error(`variables of type "${definition.type}" are not known here`);
  }
}

/**
 * Asks for every variable's options and chooses: the caller's choice, else the saved one, else the first.
 *
 * Returns `{ variables, errors }`; variables by name, each with `value` (a text, or several), `text` and `options`.
 */
export async function resolveVariables(definitions, chosen, client, range) {
  const variables = {};
  const errors = [];
  for (const definition of definitions) {
    let options = [];
    try {
      options = await optionsOf(definition, variables, client, range);
    } catch (error) {
      errors.push(`variable ${definition.name}: ${error.message}`);
    }
    const several = definition.multi || definition.includeAll;
    const saved = [].concat(definition.current?.value ?? []).filter((value) => value !== '');
    let wanted = chosen[definition.name] ?? saved;
    wanted = wanted.map((value) => (value === 'All' && definition.includeAll ? ALL : value));
    // A saved choice that is no option any more is dropped, as on Grafana's refresh; the caller's stays.
    if (!chosen[definition.name] && definition.type !== 'datasource') {
      wanted = wanted.filter((value) => value === ALL || options.some((option) => option.value === value));
    }
    if (definition.type === 'datasource') {
      wanted = ['prometheus'];
    }
    if (wanted.length === 0) {
      wanted = definition.includeAll ? [ALL] : options.slice(0, 1).map((option) => option.value);
    }
    const isAll = Boolean(definition.includeAll) && wanted.includes(ALL);
    const values = isAll ? options.map((option) => option.value) : wanted;
    const textOf = (value) => options.find((option) => option.value === value)?.text ?? value;
    variables[definition.name] = {
      name: definition.name,
      label: definition.label || definition.name,
      hide: definition.hide ?? 0,
      multi: Boolean(definition.multi),
      includeAll: Boolean(definition.includeAll),
      allValue: definition.allValue || null,
      isAll,
      options,
      value: several ? values : (values[0] ?? ''),
      text: isAll ? 'All' : wanted.map(textOf).join(' + '),
    };
  }
  return { variables, errors };
}
