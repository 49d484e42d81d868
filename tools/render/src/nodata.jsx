// What Grafana writes into a panel without data.

import { useTheme2 } from '@grafana/ui';

export function NoData({ panel }) {
  const theme = useTheme2();
  return (
    <div
      data-no-data
      style={{
        display: 'flex',
        alignItems: 'center',
        justifyContent: 'center',
        height: '100%',
        width: '100%',
        color: theme.colors.text.secondary,
        fontSize: theme.typography.h4.fontSize,
      }}
    >
      {panel.fieldConfig?.defaults?.noValue ?? 'No data'}
    </div>
  );
}
