import { DomainError, invalid, unavailable } from '@bulkhead/protocol';
import { Prisma } from '../generated/client.ts';

/** Prisma's codes: cannot reach, cannot get a connection, lost it, timed out, lost a conflict of locks. */
const transientCodes = new Set(['P1001', 'P1002', 'P1008', 'P1017', 'P2024', 'P2028', 'P2034']);

/** The same in the words of the driver adapter, which is how raw queries report it. */
const transientKinds = new Set([
  'DatabaseNotReachable',
  'ConnectionClosed',
  'SocketTimeout',
  'TlsConnectionError',
  'TooManyConnections',
  'TransactionWriteConflict',
  'TransactionAlreadyClosed',
]);

/** PostgreSQL's own: shutting down or starting, too many connections, deadlock, serialisation, silent for too long. */
const transientStates = /^(57P0\d|53300|40P01|40001|25P03|08\w{3})$/;

/** A NUL character, which its text cannot hold: in a parameter, and in JSON. */
const nulStates = /^(22021|22P05)$/;

/** What pg says without a code, when a connection is lost between two queries. */
const transientMessages =
  /^(Client has encountered a connection error|Connection terminated|Client was closed)/;

/** Whether the database refused a duplicate. */
export function isDuplicate(error: unknown): boolean {
  return error instanceof Prisma.PrismaClientKnownRequestError && error.code === 'P2002';
}

/**
 * What a door throws: transient failures of the database as UNAVAILABLE, text that it cannot hold as
 * INVALID, all else as it is.
 */
export function translateError(error: unknown): unknown {
  if (error instanceof DomainError) return error;
  const refusal = isTransient(error)
    ? unavailable('the database does not answer; try again in a moment')
    : nulStates.test(stateOf(error))
      ? invalid('a text holds a NUL character (\\u0000), which is not allowed')
      : null;
  if (refusal === null) return error;
  refusal.cause = error;
  return refusal;
}

interface AdapterCause {
  kind?: unknown;
  code?: unknown;
  originalCode?: unknown;
}

function adapterOf(error: Error): AdapterCause | undefined {
  const { meta, cause } = error as Error & {
    meta?: { driverAdapterError?: { cause?: AdapterCause } };
    cause?: AdapterCause;
  };
  return meta?.driverAdapterError?.cause ?? cause;
}

/** PostgreSQL's SQLSTATE; empty when the error is not from there. */
function stateOf(error: unknown): string {
  const adapter = error instanceof Error ? adapterOf(error) : undefined;
  const state = adapter?.originalCode ?? adapter?.code;
  return typeof state === 'string' ? state : '';
}

function isTransient(error: unknown): boolean {
  if (error instanceof Prisma.PrismaClientInitializationError) return true;
  if (!(error instanceof Error)) return false;
  const { code } = error as Error & { code?: unknown };
  if (typeof code === 'string' && transientCodes.has(code)) return true;
  if (transientMessages.test(error.message)) return true;
  return transientKinds.has(String(adapterOf(error)?.kind)) || transientStates.test(stateOf(error));
}
