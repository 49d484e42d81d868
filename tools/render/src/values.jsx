// Stat, bar gauge and gauge: values reduced by @grafana/data, laid out by Grafana's `VizRepeater`.

import {
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  ThresholdsMode,
  VizOrientation,
} from '@grafana/data';
import { BarGauge, BigValue, measureText, useTheme2, VizRepeater } from '@grafana/ui';

const REDUCE = { values: false, calcs: ['lastNotNull'], fields: '' };

function Values({ panel, data, width, height, children, spacing, sparkline = false, autoGrid = false, ...rest }) {
  const theme = useTheme2();
  const { options = {} } = panel;
  const getValues = () =>
    getFieldDisplayValues({
      fieldConfig: data.fieldConfig,
      reduceOptions: { ...REDUCE, ...options.reduceOptions },
      replaceVariables: data.replaceVariables,
      theme,
      data: data.frames,
      sparkline,
      percentChange: options.showPercentChange,
      timeZone: 'browser',
    });
  return (
    <VizRepeater
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={children}
      width={width}
      height={height}
      source={data}
      itemSpacing={spacing}
      renderCounter={1}
      autoGrid={autoGrid}
      orientation={options.orientation ?? VizOrientation.Auto}
      {...rest}
    />
  );
}

export function StatPanel({ panel, data, width, height, range }) {
  const theme = useTheme2();
  const options = { colorMode: 'value', graphMode: 'area', justifyMode: 'auto', textMode: 'auto', wideLayout: true, ...panel.options };
  // A display name, or the want of a title, puts the name beside the value.
  const named = options.textMode === 'auto' && (data.fieldConfig.defaults.displayName || !panel.title);
  return (
    <Values panel={panel} data={data} width={width} height={height} spacing={3} sparkline={options.graphMode !== 'none'} autoGrid>
      {({ value, width: w, height: h, alignmentFactors, count }) => {
        if (value.sparkline) {
          value.sparkline.timeRange = range;
        }
        return (
          <BigValue
            value={value.display}
            count={count}
            sparkline={value.sparkline}
            colorMode={options.colorMode}
            graphMode={options.graphMode}
            justifyMode={options.justifyMode}
            textMode={named ? 'value_and_name' : options.textMode}
            alignmentFactors={alignmentFactors}
            text={options.text}
            width={w}
            height={h}
            theme={theme}
            percentChangeColorMode={options.percentChangeColorMode}
            disableWideLayout={!options.wideLayout}
          />
        );
      }}
    </Values>
  );
}

export function BarGaugePanel({ panel, data, width, height }) {
  const theme = useTheme2();
  const options = {
    displayMode: 'gradient',
    valueMode: 'color',
    namePlacement: 'auto',
    showUnfilled: true,
    sizing: 'auto',
    minVizWidth: 8,
    minVizHeight: 16,
    maxVizHeight: 300,
    ...panel.options,
  };
  const auto = options.sizing === 'auto';
  return (
    <Values
      panel={panel}
      data={data}
      width={width}
      height={height}
      spacing={options.displayMode === 'lcd' ? 2 : 10}
      minVizWidth={auto ? 8 : options.minVizWidth}
      minVizHeight={auto ? 16 : options.minVizHeight}
      maxVizHeight={auto ? 300 : options.maxVizHeight}
    >
      {({ value, width: w, height: h, alignmentFactors, orientation, isOverflow }) => (
        <BarGauge
          value={value.display}
          width={w}
          height={h}
          orientation={orientation}
          field={value.field}
          text={options.text}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          theme={theme}
          itemSpacing={options.displayMode === 'lcd' ? 2 : 10}
          displayMode={options.displayMode}
          alignmentFactors={alignmentFactors}
          showUnfilled={options.showUnfilled}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
          isOverflow={isOverflow}
        />
      )}
    </Values>
  );
}

// === Gauge ===

/** The arc of a gauge leaves this part of the circle open, at the bottom. */
const OPEN_DEGREES = 110;

function arc(cx, cy, radius, from, to) {
  const point = (degrees) => {
    const radians = ((degrees + 90 + OPEN_DEGREES / 2) * Math.PI) / 180;
    return `${cx + radius * Math.cos(radians)} ${cy + radius * Math.sin(radians)}`;
  };
  return `M ${point(from)} A ${radius} ${radius} 0 ${to - from > 180 ? 1 : 0} 1 ${point(to)}`;
}

/** Ours: Grafana's gauge is part of its application and not on npm. Colours, range and text come from @grafana/data. */
function Gauge({ value, width, height, theme, options }) {
  const { field, display } = value;
  const min = field.min ?? 0;
  const max = field.max ?? 100;
  const span = 360 - OPEN_DEGREES;
  const share = (number) => Math.min(1, Math.max(0, (number - min) / (max - min || 1))) * span;
  const titled = Boolean(display.title) && options.titled;
  const room = height - (titled ? 20 : 0);
  const size = Math.min(width, room * 1.15);
  const stroke = size * 0.12;
  const ring = size * 0.025;
  const cx = width / 2;
  const radius = size / 2 - stroke / 2 - (options.showThresholdMarkers ? ring * 2 : 0) - 2;
  const cy = room / 2 + size * 0.06;
  const percentage = field.thresholds?.mode === ThresholdsMode.Percentage;
  const steps = (field.thresholds?.steps ?? []).map(({ value: at, color }) => ({
    at: at === -Infinity ? min : percentage ? min + (at / 100) * (max - min) : at,
    color: theme.visualization.getColorByName(color),
  }));
  const text = [display.prefix, display.text, display.suffix].filter(Boolean).join('');
  const widest = (radius - stroke / 2) * 1.7;
  const largest = radius * 0.5;
  const fontSize = Math.min(largest, (largest * widest) / measureText(text, largest, 500).width);
  const filled = share(display.numeric);
  return (
    <div style={{ width, height, position: 'relative' }}>
      <svg width={width} height={room} style={{ display: 'block', overflow: 'hidden' }}>
        <path d={arc(cx, cy, radius, 0, span)} fill="none" strokeWidth={stroke} stroke={theme.colors.background.secondary} />
        {filled > 0 && <path d={arc(cx, cy, radius, 0, filled)} fill="none" strokeWidth={stroke} stroke={display.color} />}
        {options.showThresholdMarkers &&
          steps.map(({ at, color }, index) => {
            const from = share(at);
            const to = share(steps[index + 1]?.at ?? max);
            return to > from ? (
              <path key={index} d={arc(cx, cy, radius + stroke / 2 + ring, from, to)} fill="none" strokeWidth={ring} stroke={color} />
            ) : null;
          })}
        <text x={cx} y={cy} textAnchor="middle" dominantBaseline="central" fontSize={fontSize} fontWeight={500} fill={display.color}>
          {text}
        </text>
      </svg>
      {titled && (
        <div style={{ textAlign: 'center', fontSize: 14, lineHeight: '20px', whiteSpace: 'nowrap', overflow: 'hidden', textOverflow: 'ellipsis' }}>
          {display.title}
        </div>
      )}
    </div>
  );
}

export function GaugePanel({ panel, data, width, height }) {
  const theme = useTheme2();
  const options = { showThresholdMarkers: true, ...panel.options };
  return (
    <Values panel={panel} data={data} width={width} height={height} spacing={8} autoGrid>
      {({ value, width: w, height: h, count }) => (
        <Gauge value={value} width={w} height={h} theme={theme} options={{ ...options, titled: count > 1 || !panel.title }} />
      )}
    </Values>
  );
}
