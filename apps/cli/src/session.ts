import { readProject, type ProjectFile } from './context/project.ts';
import {
  resolveApp,
  resolveConnection,
  resolveTenant,
  type Connection,
  type GlobalOptions,
} from './context/settings.ts';
import { contextPath, readContexts, writeContexts, type ContextFile } from './context/store.ts';
import { CliError } from './errors.ts';
import { GraphqlClient } from './graphql/client.ts';
import { Output, type Streams } from './output/output.ts';

/** The world a command runs in; `main` gives the real one. */
export interface Io {
  readonly streams: Streams;
  readonly env: NodeJS.ProcessEnv;
  readonly cwd: string;
  /** Aborted by Ctrl-C and SIGTERM; the reason is the signal's name. */
  readonly signal: AbortSignal;
}

/** One run of one command: its options, where it goes, and how it speaks. */
export class Session {
  readonly io: Io;
  readonly options: GlobalOptions;
  readonly out: Output;
  readonly stored: ContextFile;
  readonly project: ProjectFile | null;

  private constructor(
    io: Io,
    options: GlobalOptions,
    out: Output,
    stored: ContextFile,
    project: ProjectFile | null,
  ) {
    this.io = io;
    this.options = options;
    this.out = out;
    this.stored = stored;
    this.project = project;
  }

  /** Reads the contexts and ./bulkhead.json. */
  static async open(io: Io, options: GlobalOptions): Promise<Session> {
    const out = new Output(io.streams, io.env, options.json === true);
    const stored = await readContexts(contextPath(io.env), (text) => out.warn(text));
    const project = await readProject(`${io.cwd}/bulkhead.json`, false);
    return new Session(io, options, out, stored, project);
  }

  /** Where this command goes; throws when the options or the context do not make sense. */
  get connection(): Connection {
    return resolveConnection(this.options, this.io.env, this.stored);
  }

  /** A client for everything else. */
  client(): GraphqlClient {
    return this.clientFor(this.connection.server, this.#token());
  }

  /** A client for what is to be tidied up after Ctrl-C. */
  unsignalledClient(): GraphqlClient {
    const { server } = this.connection;
    const signal = new AbortController().signal;
    return new GraphqlClient({ server, token: this.#token(), signal, raw: this.out.json });
  }

  #token(): string {
    const { server, token } = this.connection;
    if (token !== null) return token;
    throw new CliError('UNAUTHENTICATED', `not signed in to ${server}`, {
      hint: `Run \`bulkhead login ${server}\`, or set BULKHEAD_TOKEN.`,
    });
  }

  clientFor(server: string, token: string | null): GraphqlClient {
    return new GraphqlClient({ server, token, signal: this.io.signal, raw: this.out.json });
  }

  /** The same run with another project file. */
  with(project: ProjectFile | null): Session {
    return new Session(this.io, this.options, this.out, this.stored, project);
  }

  tenant(): string {
    // First things first: who is not signed in has no tenant to choose.
    this.#token();
    return resolveTenant(this.options, this.io.env, this.project, this.connection);
  }

  /** The variables that name an app: `typed` is a positional argument where a command has one. */
  app(typed?: string): { tenant: string; app: string } {
    const tenant = this.tenant();
    return { tenant, app: resolveApp(typed, this.options, this.io.env, this.project) };
  }

  async store(contexts: ContextFile): Promise<void> {
    await writeContexts(contextPath(this.io.env), contexts);
  }
}
