// Time series: Grafana's `TimeSeries` draws; the marks of annotations and exemplars on top are ours.

import { FieldType, getFieldDisplayName } from '@grafana/data';
import { EventsCanvas, TimeSeries, useTheme2 } from '@grafana/ui';
import { useLayoutEffect, useMemo } from 'react';
import { NoData } from './nodata.jsx';

/** Grafana's numbers for marks, in pixels of the page. */
const LINE_WIDTH = 2;
const DASH = [5, 5];
const MARK = 5;

/** The frames with a time and a number, as Grafana's panel prepares them; null when there is nothing to draw. */
function graphable(frames) {
  const kept = frames.filter(
    (frame) =>
      frame.length > 0 &&
      frame.fields.some((field) => field.type === FieldType.time) &&
      frame.fields.some((field) => field.type === FieldType.number)
  );
  for (const frame of kept) {
    for (const field of frame.fields) {
      if (field.type === FieldType.number) {
        // uPlot takes null for a gap, and neither infinities nor NaN.
        field.values = field.values.map((value) => (Number.isFinite(value) ? value : null));
      }
    }
  }
  return kept.length > 0 ? kept : null;
}

/** Vertical dashed lines with a small triangle at the foot, or a tinted stretch with a bar at the foot. */
function Annotations({ config, annotations, withNames }) {
  const theme = useTheme2();
  useLayoutEffect(() => {
    config.addHook('draw', (u) => {
      const { ctx } = u;
      const ratio = devicePixelRatio;
      const { left, top, width, height } = u.bbox;
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, top, width, height + MARK * 2 * ratio);
      ctx.clip();
      ctx.lineWidth = LINE_WIDTH * ratio;
      for (const { color: name, events, name: title } of annotations) {
        const color = theme.visualization.getColorByName(name);
        ctx.strokeStyle = color;
        ctx.fillStyle = color;
        for (const { time, timeEnd } of events) {
          const from = u.valToPos(time, 'x', true);
          const to = u.valToPos(timeEnd, 'x', true);
          ctx.setLineDash(DASH.map((length) => length * ratio));
          for (const x of timeEnd > time ? [from, to] : [from]) {
            ctx.beginPath();
            ctx.moveTo(x, top);
            ctx.lineTo(x, top + height);
            ctx.stroke();
          }
          if (timeEnd > time) {
            ctx.globalAlpha = 0.1;
            ctx.fillRect(from, top, to - from, height);
            ctx.globalAlpha = 1;
            ctx.fillRect(from, top + height, to - from, MARK * ratio);
          } else {
            ctx.beginPath();
            ctx.moveTo(from, top + height);
            ctx.lineTo(from - MARK * ratio, top + height + MARK * ratio);
            ctx.lineTo(from + MARK * ratio, top + height + MARK * ratio);
            ctx.fill();
          }
          if (withNames) {
            ctx.font = `${11 * ratio}px Inter`;
            ctx.textBaseline = 'top';
            const room = ctx.measureText(title).width + 4 * ratio;
            const fits = from + room < left + width;
            ctx.textAlign = fits ? 'left' : 'right';
            ctx.fillText(title, from + (fits ? 4 : -4) * ratio, top + 2 * ratio);
          }
        }
      }
      ctx.restore();
    });
  }, [config, annotations, theme, withNames]);
  return null;
}

/** Diamonds at the exemplars' heights, in the colour of the series whose labels agree. */
function Exemplars({ config, exemplars, frames }) {
  const theme = useTheme2();
  const frame = useMemo(
    () => [{ length: exemplars.length, at: exemplars }],
    [exemplars]
  );
  const toCoordinates = (_, index) => {
    const u = config.__plot;
    if (!u) {
      return undefined;
    }
    const { time, value } = exemplars[index];
    // Grafana, too, takes the scale of the first series.
    const [, scale] = config.scaleKeys;
    const { min, max } = u.scales[scale];
    const { min: first, max: last } = u.scales.x;
    if (time < first || time > last) {
      return undefined;
    }
    // Outside of the scale they stay at its edge, to be seen.
    const y = Math.min(Math.max(value, min), max);
    return { x: u.valToPos(time, 'x'), y: u.valToPos(y, scale) };
  };
  const colorOf = ({ labels }) => {
    const match = frames.find(({ fields }) => {
      const own = fields.find((field) => field.type === FieldType.number)?.labels ?? {};
      return Object.keys(own).length > 0 && Object.entries(own).every(([name, text]) => labels[name] === text);
    });
    const field = match?.fields.find(({ type }) => type === FieldType.number);
    return field && frames.length > 1 ? (field.display(0).color ?? undefined) : undefined;
  };
  useLayoutEffect(() => {
    config.addHook('init', (u) => {
      config.__plot = u;
    });
  }, [config]);
  return (
    <EventsCanvas
      id="exemplars"
      config={config}
      events={frame}
      mapEventToXYCoords={toCoordinates}
      renderEventMarker={(_, index) => (
        <svg viewBox="0 0 7 7" width="7" height="7" style={{ fill: colorOf(exemplars[index]) ?? theme.visualization.getColorByName('blue'), display: 'block' }}>
          <rect x="3.38672" width="4.78985" height="4.78985" transform="rotate(45 3.38672 0)" />
        </svg>
      )}
    />
  );
}

export function TimeSeriesPanel({ panel, data, width, height, range, annotations, withNames }) {
  const frames = useMemo(() => graphable(data.frames), [data]);
  if (!frames) {
    return <NoData panel={panel} />;
  }
  const legend = { showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [], ...panel.options?.legend };
  return (
    <TimeSeries
      frames={frames}
      structureRev={1}
      timeRange={range}
      timeZone={['browser']}
      width={width}
      height={height}
      legend={legend}
      options={panel.options}
    >
      {(config) => (
        <>
          {annotations.length > 0 && <Annotations config={config} annotations={annotations} withNames={withNames} />}
          {data.exemplars.length > 0 && <Exemplars config={config} exemplars={data.exemplars} frames={frames} />}
        </>
      )}
    </TimeSeries>
  );
}

/** What the legend of a panel says, for the report. */
export function namesOf(frames) {
  return frames.flatMap((frame) =>
    frame.fields.filter(({ type }) => type === FieldType.number).map((field) => getFieldDisplayName(field, frame, frames))
  );
}
