// The quoting of variables: run with `node --test tools/render/variables.test.mjs`. Needs no package.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forPromql, forReaders, interpolate, resolveVariables } from './src/variables.js';

const range = { from: new Date(1_000_000), to: new Date(1_900_000) };
const variable = (more) => ({ name: 'x', multi: false, includeAll: false, allValue: null, isAll: false, text: 'T', value: '', ...more });
const inQuery = (text, more, scoped) => interpolate(text, { x: variable(more) }, scoped, forPromql);

test('one choice is quoted as a string, not as a regular expression', () => {
  assert.equal(inQuery('{route="$x"}', { value: '/a.b/{id}' }), '{route="/a.b/{id}"}');
});

test('a choice of several is quoted as a regular expression inside a string', () => {
  assert.equal(inQuery('$x', { multi: true, value: ['10.0.0.1:80'] }), '10\\\\.0\\\\.0\\\\.1:80');
  assert.equal(inQuery('${x}', { multi: true, value: ['a', 'b+'] }), '(a|b\\\\+)');
});

test('all is the value for all as it stands', () => {
  assert.equal(inQuery('{job=~"[[x]]"}', { includeAll: true, isAll: true, allValue: '.+', value: ['a', 'b'] }), '{job=~".+"}');
});

test('a name nobody knows is left alone, a longer name is another name', () => {
  assert.equal(inQuery('$xy ${nothing} $__interval', { value: 'a' }), '$xy ${nothing} $__interval');
});

test('values of the query win over variables and need no quoting', () => {
  assert.equal(inQuery('rate(m[$__rate_interval])', {}, { __rate_interval: { value: '1m0s' } }), 'rate(m[1m0s])');
});

test('titles show what the reader chose', () => {
  assert.equal(interpolate('Routes of $x', { x: variable({ value: ['a', 'b'], text: 'a + b' }) }, {}, forReaders), 'Routes of a + b');
});

test('a selector with commas is not cut in the middle', async () => {
  const asked = [];
  const client = {
    labelValues: async (label, selector) => {
      asked.push([label, selector]);
      return ['b', 'a'];
    },
  };
  const definitions = [
    { name: 'one', type: 'query', query: 'label_values(m{a="1",b="2"}, route)', sort: 1 },
    { name: 'two', type: 'query', query: { query: 'label_values(job)' }, includeAll: true, multi: true, allValue: '.+' },
  ];
  const { variables, errors } = await resolveVariables(definitions, {}, client, range);
  assert.deepEqual(errors, []);
  assert.deepEqual(asked, [['route', 'm{a="1",b="2"}'], ['job', '']]);
  assert.equal(variables.one.value, 'a');
  assert.equal(forPromql(variables.two), '.+');
});

test('all holds where there is nothing to choose from', async () => {
  const client = { labelValues: async () => [] };
  const current = { text: ['All'], value: ['$__all'] };
  const all = { name: 'x', type: 'query', query: 'label_values(m, x)', includeAll: true, multi: true, allValue: '.*', current };
  const { variables, errors } = await resolveVariables([all], {}, client, range);
  assert.deepEqual(errors, []);
  assert.equal(forPromql(variables.x), '.*');
});

test('a variable that cannot be asked for is an error, and the rest goes on', async () => {
  const client = { labelValues: async () => Promise.reject(new Error('refused')) };
  const { variables, errors } = await resolveVariables([{ name: 'one', type: 'query', query: 'label_values(job)' }], {}, client, range);
  assert.deepEqual(errors, ['variable one: refused']);
  assert.equal(variables.one.value, '');
});
