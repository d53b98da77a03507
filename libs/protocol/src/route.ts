import { z } from 'zod';

export const routeBackend = z.object({
  instance: z.string(),
  host: z.string(),
  port: z.number().int(),
  /** Its part of the requests beside the others'; 1 when left out. */
  weight: z.number().int().min(1).max(256).optional(),
  /** It is asked in HTTP/2, without TLS and without asking whether it can; else in HTTP/1.1. */
  http2: z.boolean().optional(),
});
export type RouteBackend = z.infer<typeof routeBackend>;

/** One value per host name in the KV bucket `routes`; a deleted route is a deleted key. */
export const route = z.object({
  v: z.literal(1),
  /** Lower case, without port. Also the key. */
  host: z.string(),
  tenant: z.string(),
  app: z.string(),
  state: z.enum(['serving', 'starting', 'stopped', 'crashed', 'paused']),
  backends: z.array(routeBackend),
  /** Grows with every change of this route; an edge ignores older ones. */
  revision: z.number().int(),
});
export type Route = z.infer<typeof route>;

/**
 * Plain NATS on `edge.applied.<edge>`: this edge serves `host` by `revision`, and no request is left
 * on a backend that the revision took away. Sent on every change and again when the same revision
 * is delivered again, which is how a controller asks.
 */
export const edgeApplied = z.object({
  v: z.literal(1),
  host: z.string(),
  revision: z.number().int(),
});
export type EdgeApplied = z.infer<typeof edgeApplied>;

/** Plain NATS on `edge.heartbeat.<edge>`, every second. An edge unheard of for 5 s is not waited for. */
export const edgeHeartbeat = z.object({
  v: z.literal(1),
  at: z.iso.datetime(),
  routes: z.number().int(),
});
export type EdgeHeartbeat = z.infer<typeof edgeHeartbeat>;
