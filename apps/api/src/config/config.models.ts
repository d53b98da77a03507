import { Field, InputType, ObjectType } from '@nestjs/graphql';
import type { AppView, DeploymentView } from '@bulkhead/tenancy';
import { App } from '../apps/apps.models.ts';
import { Deployment } from '../deployments/deployments.models.ts';
import { StrategyInput } from '../deployments/strategy.models.ts';

@ObjectType({ description: 'An environment variable of an app.' })
export class ConfigVar {
  @Field(() => String, { description: 'Its name.' })
  name: string;

  @Field(() => String, { description: 'Its value, in the clear.' })
  value: string;
}

@InputType({ description: 'An environment variable to be set or removed.' })
export class ConfigVarInput {
  @Field(() => String, { description: 'Letters, digits and _; not PORT and not BULKHEAD_*.' })
  name: string;

  @Field(() => String, { nullable: true, description: 'Its value; null removes it.' })
  value?: string | null;
}

@InputType({ description: 'Changes of config.' })
export class SetConfigInput {
  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => [ConfigVarInput], { description: 'What to set or remove; the rest stays.' })
  vars: ConfigVarInput[];

  @Field(() => StrategyInput, {
    nullable: true,
    description: 'How it goes, and how the next ones go unless they say so.',
  })
  strategy?: StrategyInput | null;
}

@ObjectType({ description: 'What a change of config did.' })
export class ConfigPayload {
  @Field(() => App, { description: 'The app.' })
  app: AppView;

  @Field(() => Deployment, {
    nullable: true,
    description:
      'Brings the config to the instances; null when nothing is deployed yet or nothing changed.',
  })
  deployment: DeploymentView | null;
}
