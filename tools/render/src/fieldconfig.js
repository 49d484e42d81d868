// The field options that dashboards may set, with the defaults of Grafana's panels.
//
// `applyFieldOverrides` of @grafana/data does the work; the list of options it walks is part of Grafana's application
// and of its panels, neither of which is on npm, so the list is repeated here.

import {
  booleanOverrideProcessor,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  FieldConfigOptionsRegistry,
  FieldType,
  identityOverrideProcessor,
  numberOverrideProcessor,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';

const always = () => true;
const onNumbers = (field) => field.type === FieldType.number;
const notOnTime = (field) => field.type !== FieldType.time;

const STANDARD = [
  ['unit', unitOverrideProcessor, always],
  ['min', numberOverrideProcessor, onNumbers],
  ['max', numberOverrideProcessor, onNumbers],
  ['fieldMinMax', booleanOverrideProcessor, onNumbers],
  ['decimals', numberOverrideProcessor, onNumbers],
  ['displayName', displayNameOverrideProcessor, always, { expandTemplateVars: true }],
  ['noValue', stringOverrideProcessor, always],
  ['color', identityOverrideProcessor, always],
  ['thresholds', thresholdsOverrideProcessor, always],
  ['mappings', valueMappingsOverrideProcessor, always],
  ['links', dataLinksOverrideProcessor, always],
  ['filterable', booleanOverrideProcessor, always],
  ['description', stringOverrideProcessor, always],
];

const HIDE_FROM = { tooltip: false, viz: false, legend: false };

/** Custom options of each panel with their defaults; `undefined` is an option without a default. */
const CUSTOM = {
  timeseries: {
    drawStyle: 'line',
    lineInterpolation: 'linear',
    lineWidth: 1,
    lineStyle: undefined,
    lineColor: undefined,
    fillOpacity: 0,
    fillBelowTo: undefined,
    gradientMode: 'none',
    barAlignment: 0,
    barWidthFactor: 0.6,
    barMaxWidth: undefined,
    showPoints: 'auto',
    showValues: false,
    pointSize: 5,
    spanNulls: false,
    insertNulls: false,
    stacking: { mode: 'none', group: 'A' },
    transform: undefined,
    axisPlacement: 'auto',
    axisLabel: '',
    axisWidth: undefined,
    axisSoftMin: undefined,
    axisSoftMax: undefined,
    axisColorMode: 'text',
    axisBorderShow: false,
    axisCenteredZero: false,
    axisGridShow: undefined,
    scaleDistribution: { type: 'linear' },
    hideFrom: HIDE_FROM,
    thresholdsStyle: { mode: 'off' },
  },
  table: {
    align: 'auto',
    cellOptions: { type: 'auto' },
    inspect: false,
    filterable: undefined,
    width: undefined,
    minWidth: undefined,
    wrapText: undefined,
    wrapHeaderText: undefined,
    footer: undefined,
    hideFrom: HIDE_FROM,
  },
  bargauge: { neutral: undefined },
  gauge: { neutral: undefined },
};

function standardItem([id, process, shouldApply, settings = {}]) {
  return { id, path: id, name: id, process, shouldApply, isCustom: false, settings };
}

function customItem(id, path = id) {
  return { id: `custom.${id}`, path, name: id, process: identityOverrideProcessor, shouldApply: notOnTime, isCustom: true, settings: {} };
}

const registries = new Map();

function registryOf(kind) {
  if (!registries.has(kind)) {
    const custom = Object.keys(CUSTOM[kind] ?? {}).map((id) => {
      const item = customItem(id);
      // The time column of a table has a width and a place too.
      return kind === 'table' ? { ...item, shouldApply: always } : item;
    });
    if (kind === 'table') {
      // Files of this schema say `custom.hidden`; Grafana moves it to the place of the other panels.
      custom.push({ ...customItem('hidden', 'hideFrom.viz'), shouldApply: always });
    }
    registries.set(kind, new FieldConfigOptionsRegistry(() => [...STANDARD.map(standardItem), ...custom]));
  }
  return registries.get(kind);
}

/** JSON has no minus infinity: the lowest threshold is written as null. */
function openEnded(thresholds) {
  const steps = thresholds?.steps?.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  return thresholds ? { ...thresholds, steps } : thresholds;
}

/** The panel's `fieldConfig` with the defaults of its kind, and the registry that goes with it. */
export function fieldConfigOf(panel) {
  const kind = panel.type;
  const saved = panel.fieldConfig?.defaults ?? {};
  const custom = { ...structuredClone(CUSTOM[kind] ?? {}), ...saved.custom };
  if (saved.custom?.hidden !== undefined) {
    custom.hideFrom = { ...HIDE_FROM, viz: saved.custom.hidden };
  }
  const defaults = {
    ...saved,
    custom,
    color: saved.color ?? { mode: kind === 'timeseries' ? 'palette-classic' : 'thresholds' },
    thresholds: openEnded(
      saved.thresholds ?? { mode: 'absolute', steps: [{ color: 'green', value: null }, { color: 'red', value: 80 }] }
    ),
  };
  const overrides = (panel.fieldConfig?.overrides ?? []).map((override) => ({
    ...override,
    properties: override.properties.map((property) =>
      property.id === 'thresholds' ? { ...property, value: openEnded(property.value) } : property
    ),
  }));
  return { fieldConfig: { defaults, overrides }, fieldConfigRegistry: registryOf(kind) };
}
