import { pino, stdSerializers, type DestinationStream, type Logger } from 'pino';

/** The key of the pino logger in Nest's container. */
export const LOGGER = Symbol('LOGGER');
export type { Logger };

// Names under which secrets travel in this process. The access log carries no bodies or headers at
// all; this is the second line, for objects that somebody logs by mistake.
const secretNames = ['authorization', 'password', 'secret', 'token', 'variables', 'cookie'];

/**
 * Errors with their stack, but of Prisma's only the last line: the others can repeat the values of
 * the query that failed.
 */
function serializeError(error: unknown) {
  if (!(error instanceof Error)) return error;
  if (!error.name.startsWith('PrismaClient')) return stdSerializers.err(error);
  const { name, message } = error;
  const code = 'code' in error ? error.code : undefined;
  return { type: name, code, message: message.trim().split('\n').at(-1) };
}

/** JSON lines on standard output, at `level`, with known secret fields cut out. */
export function makeLogger(level: string, destination?: DestinationStream): Logger {
  const options = {
    level,
    base: { service: 'api' },
    timestamp: pino.stdTimeFunctions.isoTime,
    serializers: { err: serializeError },
    redact: {
      paths: secretNames.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
      censor: '[redacted]',
    },
  };
  return destination ? pino(options, destination) : pino(options);
}
