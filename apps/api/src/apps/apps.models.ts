import { Field, Float, ID, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { AppState as StateName } from '@bulkhead/tenancy';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';

export const AppState = { ACTIVE: 'active', STOPPED: 'stopped', DELETING: 'deleting' } as const;
registerEnumType(AppState, {
  name: 'AppState',
  description: 'What its owners want of an app.',
  valuesMap: {
    ACTIVE: { description: 'It runs.' },
    STOPPED: { description: 'No instance runs; the counts are kept for the next start.' },
    DELETING: { description: 'It is being removed for good.' },
  },
});

export const AppHealth = {
  NEW: 'new',
  RUNNING: 'running',
  DEPLOYING: 'deploying',
  DEGRADED: 'degraded',
  CRASHED: 'crashed',
  PAUSED: 'paused',
  STOPPED: 'stopped',
  DELETING: 'deleting',
} as const;
registerEnumType(AppHealth, {
  name: 'AppHealth',
  description: 'How an app does, at a glance.',
  valuesMap: {
    NEW: { description: 'Nothing was deployed yet.' },
    RUNNING: { description: 'All that is wanted is ready.' },
    DEPLOYING: { description: 'A deployment is on its way.' },
    DEGRADED: { description: 'Some of what is wanted is not ready.' },
    CRASHED: { description: 'Nothing of it is ready.' },
    PAUSED: { description: 'Everything of it is held still, as wanted.' },
    STOPPED: { description: 'It is stopped, as wanted.' },
    DELETING: { description: 'It is being removed for good.' },
  },
});

@ObjectType({ description: 'A thing that a tenant deploys.' })
export class App {
  @Field(() => ID, { description: 'Never changes.' })
  id: string;

  @Field(() => String, { description: 'Unique in its tenant; part of its host name.' })
  name: string;

  @Field(() => AppState, { description: 'What its owners want of it.' })
  state: StateName;

  @Field(() => DateTime, { description: 'When it was made.' })
  createdAt: Date;
}

export const AppConnection = connectionOf(App, 'App');

@InputType({ description: 'An app to be made.' })
export class CreateAppInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, {
    description: '1 to 40 of a-z, 0-9 and -, starting with a letter; unique in the tenant.',
  })
  name: string;
}

@InputType({ description: 'Names an app.' })
export class AppInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;
}

@ObjectType({
  description: 'What the edges carried for an app in a minute, or in the minutes put together.',
})
export class TrafficMinute {
  @Field(() => DateTime, { description: 'When it began.' })
  minute: Date;

  @Field(() => Int, { description: 'Answers of success.' })
  status2xx: number;

  @Field(() => Int, { description: 'Redirections, and what had not changed.' })
  status3xx: number;

  @Field(() => Int, { description: 'Answers that blame the visitor.' })
  status4xx: number;

  @Field(() => Int, { description: 'Answers that blame the app, or the edge.' })
  status5xx: number;

  @Field(() => Int, {
    description: 'Times that an instance could not be reached or gave no valid answer.',
  })
  failed: number;

  @Field(() => Float, { description: 'Bytes from visitors, with headers.' })
  bytesIn: number;

  @Field(() => Float, { description: 'Bytes to visitors, with headers.' })
  bytesOut: number;

  @Field(() => Float, {
    nullable: true,
    description:
      'Mean time until the answer began, milliseconds: each request counted with the mean of the last 1,024. Null without requests.',
  })
  meanMs: number | null;

  @Field(() => Float, {
    nullable: true,
    description:
      'Half of the answers of the app began within so many milliseconds. Read from a histogram: off by less than a quarter. Null without answers.',
  })
  p50Ms: number | null;

  @Field(() => Float, { nullable: true, description: 'As p50Ms, for 95 answers of a hundred.' })
  p95Ms: number | null;

  @Field(() => Float, { nullable: true, description: 'As p50Ms, for 99 answers of a hundred.' })
  p99Ms: number | null;
}
