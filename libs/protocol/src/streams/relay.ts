/**
 * relay.proto for both ends, with its frames' types. Kept apart from the package's main entry, for
 * the command line has no use for gRPC.
 */
import { fileURLToPath } from 'node:url';
import {
  loadPackageDefinition,
  type ClientDuplexStream,
  type ClientUnaryCall,
  type GrpcObject,
  type Metadata,
  type ServiceClientConstructor,
  type ServiceDefinition,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import type { TerminalSize } from './streams.ts';

/** One of them is set. */
export interface ToNode {
  open?: string;
  data?: Buffer;
  end?: object;
  resize?: TerminalSize;
  signal?: string;
}
/** One of them is set. */
export interface FromNode {
  hello?: { stream: string };
  started?: object;
  data?: Buffer;
  errorData?: Buffer;
  value?: string;
  exit?: { code?: number };
  failure?: { code?: string; message?: string };
  end?: object;
}

export interface Attendance {
  certificateRequest?: string;
}
export interface Fleet {
  edges?: string[];
  places?: { address?: string; network?: string }[];
  certificate?: string;
}

/** What an agent calls; `carry` is one stream. */
export interface RelayClient {
  carry(metadata?: Metadata): ClientDuplexStream<FromNode, ToNode>;
  attend(
    attendance: Attendance,
    options: { deadline: Date },
    done: (error: ServiceError | null, fleet?: Fleet) => void,
  ): ClientUnaryCall;
  close(): void;
}

// The build has no copy of its own.
const file = fileURLToPath(new URL('../../src/streams/relay.proto', import.meta.url));
const loaded = loadPackageDefinition(loadSync(file, { longs: Number })) as unknown as {
  bulkhead: { v1: GrpcObject };
};
const relay = loaded.bulkhead.v1['Relay'] as ServiceClientConstructor;

export const RelayClient = relay as unknown as new (
  ...args: ConstructorParameters<ServiceClientConstructor>
) => RelayClient;
export const relayService: ServiceDefinition = relay.service;

/** gRPC's options of a channel on both sides: who is gone is noticed, and one frame is never large. */
export const channelOptions = {
  'grpc.keepalive_time_ms': 20_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.max_receive_message_length': 1024 * 1024,
} as const;
