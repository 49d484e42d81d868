// The page of one dashboard: controls, rows, panels on the grid. Panels sit in Grafana's `PanelChrome`.

import { renderMarkdown } from '@grafana/data';
import { Button, Icon, PanelChrome, PanelContextProvider, useTheme2 } from '@grafana/ui';
import { Component } from 'react';
import { panelContext } from './context.js';
import { TablePanel, TextPanel } from './table.jsx';
import { TimeSeriesPanel } from './timeseries.jsx';
import { BarGaugePanel, GaugePanel, StatPanel } from './values.jsx';

// Grafana's grid: 24 columns, cells 30 px high, 8 px between them, and the page's own padding.
const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
export const PAGE_PADDING = 16;

/** What `PanelChrome` takes of a panel's width: its padding and border, on both sides. */
const CHROME = 2 * 8 + 2;

const DRAWINGS = {
  timeseries: TimeSeriesPanel,
  stat: StatPanel,
  bargauge: BarGaugePanel,
  gauge: GaugePanel,
  table: TablePanel,
  text: TextPanel,
};

const known = (panel) => panel.type === 'row' || Object.hasOwn(DRAWINGS, panel.type);

/** A panel that is not drawn here is an error: a picture without it would lie. */
export function unknownKind(panel) {
  if (!known(panel)) {
    return `panels of type "${panel.type}" are not drawn here`;
  }
  const notDrawn = ['repeat', 'timeFrom', 'timeShift', 'libraryPanel'].filter((option) => panel[option]);
  return notDrawn.length > 0 ? `${notDrawn.join(', ')}: not drawn here` : null;
}

/**
 * Places of the panels in pixels. Like Grafana's grid, panels move up until they touch; the panels in a collapsed row
 * are not shown.
 */
export function layOut(panels, pageWidth) {
  const inner = pageWidth - 2 * PAGE_PADDING;
  const column = (inner - GAP * (COLUMNS - 1)) / COLUMNS;
  const placed = [];
  const sorted = [...panels].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x);
  for (const panel of sorted) {
    const { x, w } = panel.gridPos;
    const h = panel.type === 'row' ? 1 : panel.gridPos.h;
    let y = 0;
    for (const other of placed) {
      if (x < other.x + other.w && other.x < x + w) {
        y = Math.max(y, other.y + other.h);
      }
    }
    placed.push({ panel, x, y, w, h });
  }
  return placed.map(({ panel, x, y, w, h }) => ({
    panel,
    left: x * (column + GAP),
    top: y * (CELL + GAP),
    width: w * column + (w - 1) * GAP,
    height: h * CELL + (h - 1) * GAP,
    innerWidth: w * column + (w - 1) * GAP - CHROME,
  }));
}

/** One panel that fails to draw must not take the page with it; the report names it. */
class Guard extends Component {
  state = { error: null };
  static getDerivedStateFromError(error) {
    return { error };
  }
  componentDidCatch(error) {
    this.props.onError(`drawing: ${error.message}`);
  }
  render() {
    return this.state.error ? <div style={{ padding: 8 }}>{this.state.error.message}</div> : this.props.children;
  }
}

function Panel({ place, data, range, annotations, withNames, onError }) {
  const { panel, width, height } = place;
  const text = (template) => data.replaceVariables(template ?? '');
  const Drawing = DRAWINGS[panel.type];
  const unknown = unknownKind(panel);
  const errors = [...data.errors, ...(unknown ? [unknown] : [])];
  return (
    <PanelChrome
      title={text(panel.title)}
      description={panel.description ? () => renderMarkdown(text(panel.description)) : undefined}
      width={width}
      height={height}
      displayMode={panel.transparent ? 'transparent' : 'default'}
      statusMessage={errors.length > 0 ? errors.join('\n') : undefined}
      loadingState={errors.length > 0 ? 'Error' : 'Done'}
    >
      {(innerWidth, innerHeight) =>
        Drawing ? (
          <Guard onError={onError}>
            <PanelContextProvider value={panelContext}>
              <Drawing
                panel={panel}
                data={data}
                width={innerWidth}
                height={innerHeight}
                range={range}
                annotations={annotations}
                withNames={withNames}
                replaceVariables={data.replaceVariables}
              />
            </PanelContextProvider>
          </Guard>
        ) : (
          unknown
        )
      }
    </PanelChrome>
  );
}

function Row({ panel, title }) {
  const theme = useTheme2();
  const hidden = panel.collapsed ? (panel.panels?.length ?? 0) : 0;
  return (
    <div style={{ display: 'flex', alignItems: 'center', gap: 6, height: CELL, ...theme.typography.h5, color: theme.colors.text.primary }}>
      <Icon name={panel.collapsed ? 'angle-right' : 'angle-down'} />
      <span>{title}</span>
      {hidden > 0 && (
        <span style={{ ...theme.typography.bodySmall, color: theme.colors.text.secondary }}>
          ({hidden} panel{hidden === 1 ? '' : 's'})
        </span>
      )}
    </div>
  );
}

function Control({ label, value, swatch }) {
  const theme = useTheme2();
  const box = {
    display: 'flex',
    alignItems: 'center',
    height: 32,
    padding: '0 8px',
    border: `1px solid ${theme.components.input.borderColor}`,
    ...theme.typography.bodySmall,
  };
  return (
    <div style={{ display: 'flex' }}>
      {label && (
        <div style={{ ...box, background: theme.colors.background.primary, borderRight: value === undefined ? box.border : 'none', borderRadius: value === undefined ? 2 : '2px 0 0 2px', fontWeight: 500, gap: 6 }}>
          {swatch && <span style={{ width: 10, height: 10, borderRadius: 5, background: swatch }} />}
          {label}
        </div>
      )}
      {value !== undefined && (
        <div style={{ ...box, background: theme.components.input.background, borderRadius: label ? '0 2px 2px 0' : 2, gap: 8, fontSize: theme.typography.body.fontSize }}>
          {value}
          <Icon name="angle-down" />
        </div>
      )}
    </div>
  );
}

/** Links of the dashboard: one button for a list, otherwise one for each dashboard with all of the tags. */
function linksOf(dashboard, others) {
  return (dashboard.links ?? []).flatMap((link) => {
    if (link.type !== 'dashboards') {
      return [{ title: link.title, icon: 'external-link-alt' }];
    }
    if (link.asDropdown) {
      return [{ title: link.title, icon: 'bars' }];
    }
    return others
      .filter(({ uid, tags }) => uid !== dashboard.uid && link.tags.every((tag) => tags.includes(tag)))
      .map(({ title }) => ({ title, icon: 'apps' }));
  });
}

export function Dashboard({ dashboard, others, places, loaded, variables, annotations, range, rangeText, withNames, onError }) {
  const theme = useTheme2();
  const height = Math.max(0, ...places.map(({ top, height: h }) => top + h));
  return (
    <div style={{ padding: PAGE_PADDING, background: theme.colors.background.canvas }}>
      <div data-controls style={{ display: 'flex', flexDirection: 'column', gap: 8, marginBottom: 16 }}>
        <div style={{ display: 'flex', justifyContent: 'space-between', alignItems: 'center' }}>
          <div style={{ ...theme.typography.h4, margin: 0 }}>{dashboard.title}</div>
          <Control value={rangeText} />
        </div>
        <div style={{ display: 'flex', gap: 8, flexWrap: 'wrap' }}>
          {Object.values(variables)
            .filter(({ hide }) => hide !== 2)
            .map((variable) => (
              <Control key={variable.name} label={variable.hide === 1 ? '' : variable.label} value={variable.text || 'None'} />
            ))}
          {annotations.map(({ name, color, hide }) =>
            hide ? null : <Control key={name} label={name} swatch={theme.visualization.getColorByName(color)} />
          )}
          <div style={{ flexGrow: 1 }} />
          {linksOf(dashboard, others).map(({ title, icon }) => (
            <Button key={title} variant="secondary" icon={icon}>
              {title}
            </Button>
          ))}
        </div>
      </div>
      <div style={{ position: 'relative', height }}>
        {places.map((place) => {
          const { panel, left, top, width, height: h } = place;
          const data = loaded.get(panel.id);
          return (
            <div key={panel.id} data-panel={panel.id} style={{ position: 'absolute', left, top, width, height: h }}>
              {panel.type === 'row' ? (
                <Row panel={panel} title={data.replaceVariables(panel.title ?? '')} />
              ) : (
                <Panel
                  place={place}
                  data={data}
                  range={range}
                  annotations={annotations.filter(({ panels }) => panels(panel.id))}
                  withNames={withNames}
                  onError={(message) => onError(panel.id, message)}
                />
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}
