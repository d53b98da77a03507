import { CliError, isErrorCode, type ExitName } from '../errors.ts';
import { plainText } from '../output/text.ts';

/** A GraphQL error as it comes over the wire. */
export interface WireError {
  readonly message?: unknown;
  readonly extensions?: { readonly code?: unknown } | null;
}

/** What a hint needs to know of the request that failed. */
export interface RequestFacts {
  readonly server: string;
  readonly signedIn: boolean;
  readonly tenant: string | null;
  readonly app: string | null;
}

/** The error to show for the errors of an answer; the first one speaks for all. */
export function problemOf(errors: readonly WireError[], facts: RequestFacts): CliError {
  const [first] = errors;
  const code = first?.extensions?.code;
  const message = plainText(
    typeof first?.message === 'string' ? first.message : 'the server gave no reason',
  );
  if (isErrorCode(code)) {
    const hint = hintFor(code, facts, message);
    return new CliError(code, code === 'UNAUTHENTICATED' ? signedOut(facts, message) : message, {
      code,
      ...(hint === null ? {} : { hint }),
    });
  }
  if (code === 'GRAPHQL_VALIDATION_FAILED' || code === 'GRAPHQL_PARSE_FAILED') {
    return new CliError('INVALID', `the server does not understand this command: ${message}`, {
      code,
      hint: 'This bulkhead and the server are probably of different versions; see `bulkhead version`.',
    });
  }
  return new CliError('UNAVAILABLE', `the server failed: ${message}`, {
    ...(typeof code === 'string' ? { code } : {}),
    hint: 'Try again; if it stays, the log of the API says why.',
  });
}

function signedOut(facts: RequestFacts, message: string): string {
  return facts.signedIn
    ? `the session has ended or the token was revoked (${message})`
    : 'not signed in';
}

function hintFor(code: ExitName, facts: RequestFacts, message: string): string | null {
  switch (code) {
    case 'UNAUTHENTICATED':
      return `Run \`bulkhead login ${facts.server}\`, or set BULKHEAD_TOKEN.`;
    case 'FORBIDDEN':
      if (facts.tenant === null) return '`bulkhead whoami` shows who you are and what you may do.';
      return '`bulkhead whoami` shows your roles; an owner or admin of the tenant can raise them.';
    case 'NOT_FOUND':
      if (facts.app !== null && message.startsWith('release ')) {
        return `See \`bulkhead releases --app ${facts.app}\`.`;
      }
      if (facts.app !== null && facts.tenant !== null && !message.startsWith('tenant ')) {
        return `\`bulkhead apps list --tenant ${facts.tenant}\` shows the apps there, \`bulkhead tenants list\` your tenants.`;
      }
      return facts.tenant === null ? null : '`bulkhead tenants list` shows your tenants.';
    case 'QUOTA_EXCEEDED':
      return facts.tenant === null
        ? 'See `bulkhead quota`.'
        : `See \`bulkhead quota --tenant ${facts.tenant}\`; an operator can raise a limit.`;
    case 'UNAVAILABLE':
      return 'Try again in a moment.';
    case 'FAILED':
    case 'USAGE':
    case 'CONFLICT':
    case 'INVALID':
    case 'INTERRUPTED':
      return null;
  }
}

/** The tenant and app that a request's variables name, for hints. */
export function factsOf(variables: unknown): { tenant: string | null; app: string | null } {
  const outer = (variables ?? {}) as Record<string, unknown>;
  const inner = (outer['input'] ?? outer) as Record<string, unknown>;
  const text = (value: unknown) => (typeof value === 'string' ? value : null);
  return { tenant: text(inner['tenant']), app: text(inner['app']) };
}
