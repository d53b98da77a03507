import type { FakeApp } from './fake-app.ts';
import { FakeServer } from './fake-server.ts';
import type { Person, Workbench } from './harness.ts';

export const password = 'correct horse battery';

/** A fake server with a tenant `demo`, and people to run commands as. */
export class World {
  readonly server: FakeServer;
  readonly workbench: Workbench;

  private constructor(server: FakeServer, workbench: Workbench) {
    this.server = server;
    this.workbench = workbench;
    const { platform } = server;
    const ann = platform.addUser('ann@example.com', password);
    const vic = platform.addUser('vic@example.com', password);
    platform.addUser('ops@example.com', password, true);
    platform.addUser('bob@example.com', password);
    platform.addTenant('demo', [
      [ann, 'OWNER'],
      [vic, 'VIEWER'],
    ]);
  }

  static async start(workbench: Workbench): Promise<World> {
    return new World(await new FakeServer().start(), workbench);
  }

  /** Somebody with a home of their own who has signed in. */
  async signedIn(email = 'ann@example.com'): Promise<Person> {
    const person = this.workbench.person();
    const ran = await person.run(['login', this.server.url, '--email', email, '--password-stdin'], {
      stdin: `${password}\n`,
    });
    if (ran.code !== 0) throw new Error(ran.stderr);
    return person;
  }

  app(name: string): FakeApp {
    const app = this.server.platform.tenantMap.get('demo')?.appMap.get(name);
    if (!app) throw new Error(`no app ${name}`);
    return app;
  }
}
