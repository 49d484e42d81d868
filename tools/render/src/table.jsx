// Table and text.

import { renderTextPanelMarkdown } from '@grafana/data';
import { useTheme2 } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { NoData } from './nodata.jsx';

/** Room for the chooser that Grafana puts below when a panel has several tables. */
const CHOOSER = 40;

export function TablePanel({ panel, data, width, height, range }) {
  const theme = useTheme2();
  const options = { frameIndex: 0, showHeader: true, cellHeight: 'sm', sortBy: [], ...panel.options };
  const frames = data.frames.filter((frame) => frame.fields.length > 0);
  if (frames.length === 0 || !frames.some((frame) => frame.length > 0)) {
    return <NoData panel={panel} />;
  }
  const several = frames.length > 1;
  const frame = frames[Math.min(options.frameIndex, frames.length - 1)];
  return (
    <>
      <TableNG
        width={width}
        height={height - (several ? CHOOSER : 0)}
        data={frame}
        noHeader={!options.showHeader}
        showTypeIcons={options.showTypeIcons}
        resizable
        sortBy={options.sortBy}
        cellHeight={options.cellHeight}
        frozenColumns={options.frozenColumns?.left}
        enablePagination={options.enablePagination}
        timeRange={range}
        fieldConfig={data.fieldConfig}
        structureRev={1}
        getActions={() => []}
      />
      {several && (
        <div data-chooser style={{ marginTop: 8, height: 32, border: `1px solid ${theme.components.input.borderColor}`, borderRadius: 4, padding: '4px 8px' }}>
          {frame.name || frame.refId} (one of {frames.length} tables)
        </div>
      )}
    </>
  );
}

export function TextPanel({ panel, replaceVariables }) {
  const { mode = 'markdown', content = '' } = panel.options ?? {};
  const text = replaceVariables(content);
  if (mode === 'code') {
    return <pre style={{ height: '100%', overflow: 'auto' }}>{text}</pre>;
  }
  const html = mode === 'html' ? text : renderTextPanelMarkdown(text);
  return (
    <div style={{ height: '100%', overflow: 'auto' }}>
      <div className="markdown-html" dangerouslySetInnerHTML={{ __html: html }} />
    </div>
  );
}
