/**
 * The closed list of errors that may be shown to a caller. Each is mapped once to GraphQL
 * (`extensions.code`), to HTTP and to the CLI's exit codes; anything else is an internal error and
 * its text stays in our logs.
 */
export const errorCodes = [
  'INVALID',
  'UNAUTHENTICATED',
  'FORBIDDEN',
  'NOT_FOUND',
  'CONFLICT',
  'QUOTA_EXCEEDED',
  'UNAVAILABLE',
] as const;

export type ErrorCode = (typeof errorCodes)[number];

/** Cuts what repeats a caller's words: a name of a megabyte must not come back as an error of a megabyte. */
export const brief = (text: string, most: number): string =>
  text.length <= most ? text : `${text.slice(0, most - 1)}…`;

/** A refusal that the caller can act on. `message` is written for the caller: what is wrong and what to do next. */
export class DomainError extends Error {
  override readonly name = 'DomainError';
  readonly code: ErrorCode;
  /** Safe to show: field names, limits, counts. Never a secret. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, details: Readonly<Record<string, unknown>> = {}) {
    super(brief(message, 1000));
    this.code = code;
    this.details = details;
  }
}

export const invalid = (message: string, details?: Readonly<Record<string, unknown>>) =>
  new DomainError('INVALID', message, details);
export const unauthenticated = (message: string) => new DomainError('UNAUTHENTICATED', message);
export const forbidden = (message: string) => new DomainError('FORBIDDEN', message);
/** Also what a caller gets for somebody else's object: existence is private. */
export const notFound = (what: string, advice?: string) =>
  new DomainError(
    'NOT_FOUND',
    `${brief(what, 300)} not found${advice === undefined ? '' : `; ${advice}`}`,
  );
export const conflict = (message: string, details?: Readonly<Record<string, unknown>>) =>
  new DomainError('CONFLICT', message, details);
export const quotaExceeded = (message: string, details?: Readonly<Record<string, unknown>>) =>
  new DomainError('QUOTA_EXCEEDED', message, details);
export const unavailable = (message: string) => new DomainError('UNAVAILABLE', message);

/** Ends a switch over a union: a new member without a case fails to compile. */
export function assertNever(value: never): never {
  throw new Error(`unexpected value: ${JSON.stringify(value)}`);
}
