import { readFileSync } from 'node:fs';
import { buildSchema, extendSchema, parse, type GraphQLSchema } from 'graphql';

/** What the API is to offer for streams; falls away when its schema has it. */
const streamsToCome = `
type StreamTicket { ticket: String! url: String instance: ID! expiresAt: DateTime! }
input TerminalInput { term: String! columns: Int! rows: Int! }
input ExecInput { tenant: String! app: String! instance: ID process: String command: [String!]! stdin: Boolean! = false terminal: TerminalInput }
input RunTaskInput { tenant: String! app: String! command: [String!]! process: String release: Int cpuMillis: Int cpuCapMillis: Int memoryMiB: Int diskMiB: Int terminal: TerminalInput stdin: Boolean! = false timeoutSeconds: Int detach: Boolean! = false }
input AttachTaskInput { tenant: String! app: String! instance: ID! terminal: TerminalInput }
input TaskInput { tenant: String! app: String! instance: ID! }
input CopyInput { tenant: String! app: String! instance: ID process: String path: String! }
input ForwardPortInput { tenant: String! app: String! instance: ID process: String port: Int! }
type TaskRun { instance: Instance! stream: StreamTicket }
enum FileChangeType { ADDED CHANGED DELETED }
enum FileKind { FILE DIRECTORY SYMLINK OTHER }
type FileChange { change: FileChangeType! kind: FileKind! path: String! }
type InstanceChanges { changes: [FileChange!]! truncated: Boolean! }
type InstanceUsage {
  instance: ID! process: String! at: DateTime! cpuMillis: Float cpuCapMillis: Int! throttled: Float
  memoryBytes: Float! memoryLimitBytes: Float! pids: Int! pidsLimit: Int! readBytesPerSecond: Float writtenBytesPerSecond: Float
  receivedBytesPerSecond: Float sentBytesPerSecond: Float diskBytes: Float diskLimitBytes: Float
}
extend type Mutation {
  exec(input: ExecInput!): StreamTicket!
  runTask(input: RunTaskInput!): TaskRun!
  attachTask(input: AttachTaskInput!): StreamTicket!
  stopTask(input: TaskInput!): Instance!
  copyFromInstance(input: CopyInput!): StreamTicket!
  copyToInstance(input: CopyInput!): StreamTicket!
  forwardPort(input: ForwardPortInput!): StreamTicket!
}
extend type Query {
  instanceChanges(tenant: String!, app: String!, instance: ID!): InstanceChanges!
  usage(tenant: String!, app: String!): [InstanceUsage!]!
}
extend type Subscription { usage(tenant: String!, app: String!, intervalSeconds: Float! = 2): [InstanceUsage!]! }
`;

/** The API's schema as it is committed: what our operations and our fake server are held against. */
export function loadSchema(): GraphQLSchema {
  const schema = buildSchema(
    readFileSync(new URL('../../../api/schema.graphql', import.meta.url), 'utf8'),
  );
  const there = schema.getMutationType()?.getFields()['exec'] !== undefined;
  return there ? schema : extendSchema(schema, parse(streamsToCome));
}
