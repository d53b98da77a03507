import {
  DiscardPolicy,
  RetentionPolicy,
  StorageType,
  JetStreamApiCodes,
  JetStreamApiError,
  type JetStreamManager,
  type StreamConfig,
} from '@nats-io/jetstream';
import { streams } from '@bulkhead/protocol';

const nanos = (seconds: number) => seconds * 1_000_000_000;

type NamedStream = Partial<StreamConfig> & { name: string };

/** A KV bucket as the stock clients lay one out, and with a limit on consumers, which they cannot set. */
function bucket(name: string, maxConsumers: number, maxValueBytes: number): NamedStream {
  return {
    name: `KV_${name}`,
    subjects: [`$KV.${name}.>`],
    retention: RetentionPolicy.Limits,
    storage: StorageType.File,
    max_msgs_per_subject: 1,
    max_msg_size: maxValueBytes,
    max_consumers: maxConsumers,
    discard: DiscardPolicy.New,
    allow_rollup_hdrs: true,
    deny_delete: true,
    deny_purge: false,
    allow_direct: true,
  };
}

/**
 * The streams that the platform needs. All of them can be lost: buckets are published again from
 * PostgreSQL, agents report again, and logs are a convenience.
 */
export function wantedStreams(logsMaxBytes: number): NamedStream[] {
  return [
    bucket(streams.desiredBucket, 20_000, 1_048_576),
    bucket(streams.routesBucket, 256, 1_048_576),
    {
      name: streams.reports,
      subjects: ['report.>'],
      retention: RetentionPolicy.Limits,
      storage: StorageType.File,
      // Each report is a complete state; a few of each instance show how it came there.
      max_msgs_per_subject: 16,
      max_age: nanos(24 * 3600),
      max_bytes: 268_435_456,
      max_msg_size: 262_144,
      discard: DiscardPolicy.Old,
    },
    {
      name: streams.logs,
      subjects: ['logs.>'],
      retention: RetentionPolicy.Limits,
      storage: StorageType.File,
      max_msgs_per_subject: 2_000,
      max_age: nanos(7 * 24 * 3600),
      max_bytes: logsMaxBytes,
      max_msg_size: 524_288,
      discard: DiscardPolicy.Old,
      allow_direct: true,
    },
  ];
}

function isStreamNotFound(error: unknown): boolean {
  return error instanceof JetStreamApiError && error.code === JetStreamApiCodes.StreamNotFound;
}

/** Creates the streams that are missing. Gives the names of those it had to make. */
export async function ensureStreams(
  jsm: JetStreamManager,
  wanted: NamedStream[],
): Promise<string[]> {
  const made: string[] = [];
  for (const config of wanted) {
    try {
      await jsm.streams.info(config.name);
    } catch (error) {
      if (!isStreamNotFound(error)) throw error;
      await jsm.streams.add(config);
      made.push(config.name);
    }
  }
  return made;
}
