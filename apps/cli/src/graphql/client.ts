import { CliError, Interrupted, usageError } from '../errors.ts';
import { plainText } from '../output/text.ts';
import type { Operation } from './operations.ts';
import { factsOf, problemOf, type RequestFacts, type WireError } from './problem.ts';
import type { Page } from './types.ts';

declare const BULKHEAD_VERSION: string | undefined;
export const version = typeof BULKHEAD_VERSION === 'string' ? BULKHEAD_VERSION : '0.0.0-source';
export const userAgent = `bulkhead/${version}`;

const requestTimeoutMs = 30_000;
const pageSize = 100;

/** A server, and who asks. */
export interface ClientOptions {
  readonly server: string;
  readonly token: string | null;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  /** The server's strings as they are. Without it escape sequences in them are removed: see text.ts. */
  readonly raw: boolean;
}

/** Queries and mutations over HTTP, with every way they fail turned into a CliError. */
export class GraphqlClient {
  readonly options: ClientOptions;

  constructor(options: ClientOptions) {
    this.options = options;
  }

  /** Runs one query or mutation. `raw` overrides the client's own choice. */
  async request<Result, Variables>(
    operation: Operation<Result, Variables>,
    variables: Variables,
    raw = this.options.raw,
  ): Promise<Result> {
    const { server } = this.options;
    const response = await this.#post(
      `${server}/graphql`,
      JSON.stringify({ query: operation.document, variables }),
    );
    const facts = this.facts(variables);
    const answer = await readAnswer(response, server, facts);
    if (answer.errors !== undefined && answer.errors.length > 0)
      throw problemOf(answer.errors, facts);
    if (answer.data === undefined || answer.data === null) {
      throw oddAnswer(server, `an answer without data (HTTP ${String(response.status)})`);
    }
    return (raw ? answer.data : clean(answer.data)) as Result;
  }

  /** All nodes of a connection, or the first `limit`. */
  async all<Result, Node, Variables extends object>(
    operation: Operation<Result, Variables & { first: number; after: string | null }>,
    variables: Variables,
    connection: (result: Result) => Page<Node>,
    limit = Number.POSITIVE_INFINITY,
  ): Promise<Node[]> {
    const nodes: Node[] = [];
    let after: string | null = null;
    for (;;) {
      const first = Math.min(pageSize, limit - nodes.length);
      const result: Result = await this.request(operation, { ...variables, first, after });
      const { nodes: some, pageInfo } = connection(result);
      nodes.push(...some);
      if (!pageInfo.hasNextPage || nodes.length >= limit || some.length === 0)
        return nodes.slice(0, limit);
      after = pageInfo.endCursor;
    }
  }

  /** The same client, which also stops when `signal` fires. */
  until(signal: AbortSignal): GraphqlClient {
    return new GraphqlClient({
      ...this.options,
      signal: AbortSignal.any([this.options.signal, signal]),
    });
  }

  facts(variables: unknown): RequestFacts {
    return {
      server: this.options.server,
      signedIn: this.options.token !== null,
      ...factsOf(variables),
    };
  }

  async #post(url: string, body: string): Promise<Response> {
    const { server, token, signal } = this.options;
    // `fetch` would refuse it with the token in its message, which may end up in the log of a CI.
    if (token !== null && !/^[\x21-\x7e]+$/.test(token)) {
      throw usageError('the token is none: there are blanks or other characters in it');
    }
    const timeout = AbortSignal.timeout(requestTimeoutMs);
    try {
      return await fetch(url, {
        method: 'POST',
        body,
        // A redirect could carry a password to another place; the person should name that place.
        redirect: 'manual',
        signal: AbortSignal.any([signal, timeout]),
        headers: {
          'content-type': 'application/json',
          accept: 'application/graphql-response+json, application/json;q=0.9',
          'user-agent': userAgent,
          ...(token === null ? {} : { authorization: `Bearer ${token}` }),
        },
      });
    } catch (error) {
      if (signal.aborted) throw new Interrupted();
      if (timeout.aborted) {
        throw new CliError(
          'UNAVAILABLE',
          `${server} did not answer within ${String(requestTimeoutMs / 1000)} s`,
          {
            hint: 'Try again in a moment.',
          },
        );
      }
      throw unreachable(server, error);
    }
  }
}

interface Answer {
  readonly data?: unknown;
  readonly errors?: readonly WireError[];
}

async function readAnswer(
  response: Response,
  server: string,
  facts: RequestFacts,
): Promise<Answer> {
  const location = response.headers.get('location');
  if (response.status >= 300 && response.status < 400) {
    throw oddAnswer(server, `a redirect${location === null ? '' : ` to ${plainText(location)}`}`);
  }
  const text = await response.text().catch(() => '');
  const answer = parse(text);
  if (answer !== null) return answer;
  if (response.status === 401) {
    return { errors: [{ message: 'HTTP 401', extensions: { code: 'UNAUTHENTICATED' } }] };
  }
  if (response.status === 429 || response.status >= 500) {
    throw new CliError('UNAVAILABLE', `${server} answers HTTP ${String(response.status)}`, {
      hint: 'Try again in a moment.',
    });
  }
  const kind = response.headers.get('content-type')?.split(';')[0] ?? 'no content type';
  throw oddAnswer(facts.server, `HTTP ${String(response.status)}, ${plainText(kind)}`);
}

/** A GraphQL answer, or null for anything else. */
function parse(text: string): Answer | null {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return null;
    const answer = value as { data?: unknown; errors?: unknown };
    if (answer.errors !== undefined && !Array.isArray(answer.errors)) return null;
    return 'data' in answer || 'errors' in answer ? (answer as Answer) : null;
  } catch {
    return null;
  }
}

function oddAnswer(server: string, what: string): CliError {
  return new CliError('UNAVAILABLE', `${server} does not answer like a Bulkhead API: ${what}`, {
    hint: 'Is this the address of the API, not of an app or a proxy? Give another with --server.',
  });
}

/** The error for a server that no connection can be made to. */
export function unreachable(server: string, error: unknown): CliError {
  const cause = (error as { cause?: unknown }).cause ?? error;
  const { code, message } = cause as { code?: string; message?: string };
  const why =
    code === 'ECONNREFUSED'
      ? 'nothing listens there'
      : code === 'ENOTFOUND' || code === 'EAI_AGAIN'
        ? 'no such host name'
        : (message ?? code ?? 'the connection failed');
  return new CliError('UNAVAILABLE', `cannot reach ${server}: ${why}`, {
    hint: 'Is the platform up (`npm run up`), and is this its address? Give another with --server.',
  });
}

/** The value with escape sequences and control characters removed from every string in it. */
export function clean(value: unknown): unknown {
  if (typeof value === 'string') return plainText(value);
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, clean(inner)]));
}
