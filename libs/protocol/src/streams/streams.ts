/**
 * Streams between a client and a container, in the words that cross process borders. A replica of
 * the API asks a node over NATS to dial (`dialRequest`), the agent dials by gRPC (relay.proto) and
 * is told what to do (`openStream`). A client speaks WebSocket with the replica: the first message
 * is text, a `streamTicket`; after it every message is binary, and its first byte says what it is
 * (`channels`).
 */
import { z } from 'zod';
import { instanceId } from '../instance.ts';

/** 256 random bits in base64url: an id that is as good as a secret. */
export const streamId = z.string().regex(/^[A-Za-z0-9_-]{43}$/);

/** On `dial.<node>`. Says where to dial and nothing of what for: whoever forges it gets a dial to a replica that knows no such stream. */
export const dialRequest = z.object({
  v: z.literal(1),
  stream: streamId,
  /** host:port of the replica that asks. */
  address: z.string().min(3).max(300),
});
export type DialRequest = z.infer<typeof dialRequest>;

const absolutePath = z
  .string()
  .min(1)
  .max(4096)
  .refine((path) => path.startsWith('/') && !path.includes('\0'), 'give an absolute path');

export const terminalSize = z.object({
  columns: z.number().int().min(1).max(10_000),
  rows: z.number().int().min(1).max(10_000),
});
export type TerminalSize = z.infer<typeof terminalSize>;

/** What the agent is to do; the first frame that it gets. */
export const openStream = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('exec'),
    instance: instanceId,
    command: z.array(z.string()).min(1),
    stdin: z.boolean(),
    /** With one, standard error comes with standard output, and `size` is its first size. */
    terminal: z.object({ term: z.string().max(100), size: terminalSize }).nullable(),
  }),
  /** To the standard streams of a one-off task: its output from its start on, then as it comes. */
  z.object({ kind: z.literal('attach'), instance: instanceId, size: terminalSize.nullable() }),
  /** A tar archive of a file or directory; its entries are named from the path's last part. */
  z.object({ kind: z.literal('copy-out'), instance: instanceId, path: absolutePath }),
  /** Unpacks a tar archive into a directory that is there. */
  z.object({ kind: z.literal('copy-in'), instance: instanceId, path: absolutePath }),
  /** One TCP connection to a port of the instance, on its own loopback or address. */
  z.object({
    kind: z.literal('forward'),
    instance: instanceId,
    port: z.number().int().min(1).max(65_535),
  }),
  /** Values: `fileChange`, each file that differs from the image. Ends by itself. */
  z.object({ kind: z.literal('changes'), instance: instanceId }),
  /** Values: `instanceUsage`, one of each instance at once and then every `intervalMs`. */
  z.object({
    kind: z.literal('usage'),
    instances: z.array(instanceId).min(1).max(1000),
    intervalMs: z.number().int().min(500).max(60_000),
  }),
]);
export type OpenStream = z.infer<typeof openStream>;

/** A file of a container that differs from its image. */
export const fileChange = z.object({
  change: z.enum(['added', 'changed', 'deleted']),
  kind: z.enum(['file', 'directory', 'symlink', 'other']),
  path: z.string(),
});
export type FileChange = z.infer<typeof fileChange>;

/** What an instance uses, read from its cgroup, its interface and its writable layer. */
export const instanceUsage = z.object({
  instance: instanceId,
  at: z.iso.datetime(),
  /** Thousandths of a core since the value before; null in the first. */
  cpuMillis: z.number().nullable(),
  cpuCapMillis: z.number().int(),
  /** Share of the scheduler's periods since the value before in which it was held back, 0 to 1; null in the first. */
  throttled: z.number().nullable(),
  /** Without page cache that can be dropped at once. */
  memoryBytes: z.number().int(),
  memoryLimitBytes: z.number().int(),
  pids: z.number().int(),
  pidsLimit: z.number().int(),
  /** Bytes a second since the value before; null in the first. */
  readBytesPerSecond: z.number().nullable(),
  writtenBytesPerSecond: z.number().nullable(),
  receivedBytesPerSecond: z.number().nullable(),
  sentBytesPerSecond: z.number().nullable(),
  /** Of the writable layer; null where nothing is counted. */
  diskBytes: z.number().int().nullable(),
  diskLimitBytes: z.number().int().nullable(),
});
export type InstanceUsage = z.infer<typeof instanceUsage>;

/** What every replica of the API is called in its certificate, wherever it is dialled. */
export const apiServerName = 'api.bulkhead.internal';

/** Path of the API's WebSocket for streams, on the API's own port, and its subprotocol. */
export const streamPath = '/streams';
export const streamProtocol = 'bulkhead-stream-v1';

/** A client's first message, as JSON text: the ticket that a mutation gave it. */
export const streamTicket = z.object({ ticket: streamId });

/** The first byte of every later message. */
export const channels = {
  /** Both ways: standard input; standard output, archive, connection. */
  data: 0,
  /** To the client: standard error. */
  errorData: 1,
  /** To the server: JSON, a `clientControl`. To the client: JSON, a `serverControl`. */
  control: 2,
} as const;

export const clientControl = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('end') }),
  z.object({ kind: z.literal('resize'), size: terminalSize }),
  z.object({ kind: z.literal('signal'), name: z.string().regex(/^SIG[A-Z0-9]{2,12}$/) }),
]);
export type ClientControl = z.infer<typeof clientControl>;

/** The server closes the socket (1000) after `exit` or `failure`. */
export const serverControl = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('started') }),
  z.object({ kind: z.literal('end') }),
  z.object({ kind: z.literal('exit'), code: z.number().int() }),
  z.object({ kind: z.literal('failure'), code: z.string(), message: z.string() }),
]);
export type ServerControl = z.infer<typeof serverControl>;

/** Frames are at most this long; longer data is cut into several. */
export const mostFrameBytes = 64 * 1024;
