import { randomBytes } from 'node:crypto';
import { ApiClient } from './client.ts';
import { until } from './until.ts';

export interface DeploymentView {
  id: string;
  status: 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'SUPERSEDED';
  failure: {
    code: string;
    message: string;
    exitCode: number | null;
    lastLines: string[];
  } | null;
  events: { message: string }[];
}

export interface InstanceView {
  id: string;
  process: string;
  release: number;
  state: string;
  desired: 'RUNNING' | 'DRAINING' | 'GONE';
  restarts: number;
  lastExit: { reason: string; exitCode: number | null } | null;
}

const deploymentFields = `id status failure { code message exitCode lastLines } events { message }`;

/** A tenant with its owner, made through the public API, and the verbs that the scenarios use. */
export class TenantFixture {
  readonly slug: string;
  readonly email: string;
  readonly password: string;
  readonly api: ApiClient;

  private constructor(slug: string, email: string, password: string, api: ApiClient) {
    this.slug = slug;
    this.email = email;
    this.password = password;
    this.api = api;
  }

  static async create(apiUrl: string): Promise<TenantFixture> {
    const slug = `t${randomBytes(4).toString('hex')}`;
    const email = `${slug}@example.com`;
    const password = randomBytes(12).toString('base64url');
    const anonymous = new ApiClient(apiUrl);
    const { signUp } = await anonymous.ask(
      `mutation ($input: SignUpInput!) { signUp(input: $input) { token } }`,
      { input: { email, password, name: 'Owner' } },
    );
    const api = anonymous.as(signUp.token);
    await api.ask(`mutation ($input: CreateTenantInput!) { createTenant(input: $input) { id } }`, {
      input: { slug, name: slug },
    });
    return new TenantFixture(slug, email, password, api);
  }

  host(app: string): string {
    return `${app}.${this.slug}.localhost`;
  }

  async createApp(name: string): Promise<void> {
    await this.api.ask(`mutation ($input: CreateAppInput!) { createApp(input: $input) { id } }`, {
      input: { tenant: this.slug, name },
    });
  }

  /** Runs a mutation that answers with a deployment, and gives its id. */
  private async deployment(field: string, type: string, input: object): Promise<string> {
    const data = await this.api.ask(
      `mutation ($input: ${type}!) { ${field}(input: $input) { id } }`,
      { input: { tenant: this.slug, ...input } },
    );
    return data[field].id;
  }

  deploy(app: string, image: string, processes?: object[]): Promise<string> {
    return this.deployment('deploy', 'DeployInput', {
      app,
      image,
      ...(processes ? { processes } : {}),
    });
  }

  scale(app: string, process: string, count: number): Promise<string> {
    return this.deployment('scale', 'ScaleInput', { app, formation: [{ process, count }] });
  }

  rollback(app: string, version?: number): Promise<string> {
    return this.deployment('rollback', 'RollbackInput', { app, version });
  }

  restart(app: string): Promise<string> {
    return this.deployment('restart', 'AppInput', { app });
  }

  stop(app: string): Promise<string> {
    return this.deployment('stopApp', 'AppInput', { app });
  }

  start(app: string): Promise<string> {
    return this.deployment('startApp', 'AppInput', { app });
  }

  async setConfig(app: string, vars: Record<string, string | null>): Promise<string | null> {
    const { setConfig } = await this.api.ask(
      `mutation ($input: SetConfigInput!) { setConfig(input: $input) { deployment { id } } }`,
      {
        input: {
          tenant: this.slug,
          app,
          vars: Object.entries(vars).map(([name, value]) => ({ name, value })),
        },
      },
    );
    return setConfig.deployment?.id ?? null;
  }

  async destroyApp(app: string): Promise<void> {
    await this.api.ask(`mutation ($input: AppInput!) { destroyApp(input: $input) { id } }`, {
      input: { tenant: this.slug, app },
    });
  }

  /** Waits for a deployment's verdict. */
  finished(id: string, timeoutMs = 90_000): Promise<DeploymentView> {
    return until(
      `deployment ${id} is finished`,
      async () => {
        const { deployment } = await this.api.ask<{ deployment: DeploymentView }>(
          `query ($id: ID!) { deployment(id: $id) { ${deploymentFields} } }`,
          { id },
        );
        return deployment.status === 'RUNNING' ? null : deployment;
      },
      timeoutMs,
    );
  }

  /** Waits for success; a failure's reason and story are in the error. */
  async succeeded(id: string, timeoutMs?: number): Promise<void> {
    const view = await this.finished(id, timeoutMs);
    if (view.status !== 'SUCCEEDED') throw new Error(JSON.stringify(view, null, 2));
  }

  /** Instances that should run, without those on their way out. */
  async serving(app: string): Promise<InstanceView[]> {
    return (await this.instances(app)).filter(({ desired }) => desired === 'RUNNING');
  }

  async instances(app: string): Promise<InstanceView[]> {
    const data = await this.api.ask(
      `query ($tenant: String!, $name: String!) { app(tenant: $tenant, name: $name) { instances {
        nodes { id process release state desired restarts lastExit { reason exitCode } } } } }`,
      { tenant: this.slug, name: app },
    );
    return data.app.instances.nodes;
  }

  async quota(): Promise<Record<string, number>> {
    const data = await this.api.ask(
      `query ($slug: String!) { tenant(slug: $slug) { quota { resource used } } }`,
      { slug: this.slug },
    );
    return Object.fromEntries(
      data.tenant.quota.map((q: { resource: string; used: number }) => [q.resource, q.used]),
    );
  }

  async logs(app: string, tail = 100): Promise<string[]> {
    const data = await this.api.ask(
      `query ($tenant: String!, $app: String!, $tail: Int) { logs(tenant: $tenant, app: $app, tail: $tail) { text } }`,
      { tenant: this.slug, app, tail },
    );
    return data.logs.map((line: { text: string }) => line.text);
  }
}
