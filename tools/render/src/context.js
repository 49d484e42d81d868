// What Grafana's panels find around them in the application: an event bus, and answers to things a picture never does.

import { EventBusSrv } from '@grafana/data';

export const panelContext = {
  eventsScope: 'render',
  eventBus: new EventBusSrv(),
  sync: () => 0,
  app: 'dashboard',
  canAddAnnotations: () => false,
  canEditAnnotations: () => false,
  canDeleteAnnotations: () => false,
  canExecuteActions: () => false,
};
