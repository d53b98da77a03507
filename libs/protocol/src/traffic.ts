import { z } from 'zod';
import { answerBuckets } from './answer-times.ts';

const count = z.number().int().min(0).max(2_000_000_000);
const bytes = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

/** What an edge carried for a host since it last said so. */
export const hostTraffic = z.object({
  host: z.string(),
  /** Answers by class of status. */
  status2xx: count,
  status3xx: count,
  status4xx: count,
  status5xx: count,
  /** Of those, the edge's own, because no instance was reached or gave a valid answer. */
  failed: count,
  /** From visitors to the app, with headers; and back. */
  bytesIn: bytes,
  bytesOut: bytes,
  /** Sum over the requests of the time until the answer began, milliseconds. */
  waitedMs: bytes,
  /**
   * An app's answers by the time until they began: counts of `answerBucket`, zeros at the end left
   * out. An edge of an earlier version does not count them.
   */
  answerTimes: z.array(count).max(answerBuckets).default([]),
});
export type HostTraffic = z.infer<typeof hostTraffic>;

/** So many hosts in one message: with names of 253 characters and full histograms it stays below NATS's megabyte. */
export const mostTrafficHosts = 500;

/** Plain NATS on `edge.traffic.<edge>`, every ten seconds with those that had any; one replica takes it. */
export const edgeTraffic = z.object({
  v: z.literal(1),
  hosts: z.array(hostTraffic).max(mostTrafficHosts),
});
export type EdgeTraffic = z.infer<typeof edgeTraffic>;
