import { setTimeout as delay } from 'node:timers/promises';
import { Controller, Get, Header, Inject, Res } from '@nestjs/common';
import type { Tenancy } from '@bulkhead/tenancy';
import type { FastifyReply } from 'fastify';
import { Public } from '../auth/permissions.ts';
import { METRICS, type Metrics } from '../metrics/metrics.ts';
import { NATS, type NatsLink } from '../nats/nats.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';

/** How long a part may take to answer before it counts as down. Milliseconds. */
const patienceMs = 2000;

/** For supervisors, load balancers and Prometheus; the API listens on loopback unless told otherwise. */
@Controller()
export class HealthController {
  constructor(
    @Inject(TENANCY) private readonly tenancy: Tenancy,
    @Inject(NATS) private readonly nats: NatsLink,
    @Inject(METRICS) private readonly numbers: Metrics,
  ) {}

  @Get('healthz')
  @Public('a supervisor asks whether the process lives')
  healthz() {
    return { status: 'ok' };
  }

  @Get('readyz')
  @Public('a load balancer asks whether requests can be answered')
  async readyz(@Res({ passthrough: true }) reply: FastifyReply) {
    const [database, nats] = await Promise.all([
      inTime(this.tenancy.ping().then(() => true)),
      inTime(this.nats.isUp()),
    ]);
    const ready = database && nats;
    reply.code(ready ? 200 : 503);
    return {
      status: ready ? 'ready' : 'not ready',
      parts: { database: database ? 'up' : 'down', nats: nats ? 'up' : 'down' },
    };
  }

  @Get('metrics')
  @Public('Prometheus reads numbers that name no tenant')
  @Header('content-type', 'text/plain; version=0.0.4; charset=utf-8')
  metrics() {
    return this.numbers.registry.metrics();
  }
}

function inTime(answer: Promise<boolean>): Promise<boolean> {
  return Promise.race([answer.catch(() => false), delay(patienceMs, false, { ref: false })]);
}
