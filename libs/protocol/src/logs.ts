import { z } from 'zod';

export const logLine = z.object({
  at: z.iso.datetime(),
  stream: z.enum(['stdout', 'stderr', 'platform']),
  text: z.string(),
});
export type LogLine = z.infer<typeof logLine>;

/** Published by agents to `logs.<tenantId>.<appId>.<node>.<instance>`, at most 256 KiB each. */
export const logBatch = z.object({
  v: z.literal(1),
  instance: z.string(),
  process: z.string(),
  lines: z.array(logLine),
  /** Lines dropped by the rate limit since the batch before. */
  dropped: z.number().int().min(0),
});
export type LogBatch = z.infer<typeof logBatch>;
