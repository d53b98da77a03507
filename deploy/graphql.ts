import type { FirstUser } from './credentials.ts';

/** An error that the API answered with; `code` is one of its stable codes. */
export class GraphqlError extends Error {
  readonly code: string;

  constructor(message: string, code: string) {
    super(message);
    this.code = code;
  }
}

/** As much of a GraphQL client as set-up needs. */
export class GraphqlClient {
  readonly #url: string;
  readonly #token: string | null;

  private constructor(url: string, token: string | null) {
    this.#url = url;
    this.#token = token;
  }

  static async signIn(apiUrl: string, { email, password }: FirstUser): Promise<GraphqlClient> {
    const url = `${apiUrl}/graphql`;
    const { signIn } = await new GraphqlClient(url, null).ask<{ signIn: { token: string } }>(
      `mutation($input: SignInInput!) { signIn(input: $input) { token } }`,
      { input: { email, password } },
    );
    return new GraphqlClient(url, signIn.token);
  }

  async ask<T>(query: string, variables: object): Promise<T> {
    const response = await fetch(this.#url, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json',
        ...(this.#token === null ? {} : { authorization: `Bearer ${this.#token}` }),
      },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(30_000),
    });
    const answer = (await response.json()) as {
      data?: T | null;
      errors?: { message: string; extensions?: { code?: string } }[];
    };
    const [error] = answer.errors ?? [];
    if (error !== undefined)
      throw new GraphqlError(error.message, error.extensions?.code ?? 'UNKNOWN');
    if (answer.data == null)
      throw new Error(`${this.#url} answers ${response.status} without data`);
    return answer.data;
  }
}
