/**
 * Every NATS name, in one place: who may publish and subscribe to which is derived from these by
 * the credentials in deploy/.
 */
export const streams = {
  /** KV bucket: `<node>.<instance>` -> InstanceSpec. Its stream is `KV_desired`. */
  desiredBucket: 'desired',
  /** KV bucket: `<host>` -> Route. Its stream is `KV_routes`. */
  routesBucket: 'routes',
  reports: 'reports',
  logs: 'logs',
} as const;

export const subjects = {
  desiredKey: (node: string, instance: string) => `${node}.${instance}`,
  desiredOfNode: (node: string) => `$KV.desired.${node}.>`,
  report: (node: string, instance: string) => `report.${node}.${instance}`,
  heartbeat: (node: string) => `heartbeat.${node}`,
  allHeartbeats: 'heartbeat.*',
  /** A replica of the API asks a node to dial it: a DialRequest. */
  dial: (node: string) => `dial.${node}`,
  logs: (tenant: string, app: string, node: string, instance: string) =>
    `logs.${tenant}.${app}.${node}.${instance}`,
  logsOfApp: (tenant: string, app: string) => `logs.${tenant}.${app}.>`,
  edgeApplied: (edge: string) => `edge.applied.${edge}`,
  allEdgeApplied: 'edge.applied.*',
  edgeHeartbeat: (edge: string) => `edge.heartbeat.${edge}`,
  allEdgeHeartbeats: 'edge.heartbeat.*',
  edgeTraffic: (edge: string) => `edge.traffic.${edge}`,
  allEdgeTraffic: 'edge.traffic.*',
  /** Between API replicas: an app changed, look at it. Carries the app's id and nothing else. */
  nudge: 'nudge.app',
} as const;

/** The one consumer name on KV_desired that a node may use; its permissions pin it. */
export const desiredConsumer = (node: string) => `desired-${node}`;
/** The inbox prefix that a client's permissions pin it to. */
export const inboxPrefix = (user: string) => `_INBOX_${user}`;
