import { Field, ID, InputType, ObjectType, registerEnumType } from '@nestjs/graphql';
import { DateTime } from '../graphql/date-time.ts';

export const CredentialKind = { SESSION: 'session', TOKEN: 'token' } as const;
registerEnumType(CredentialKind, {
  name: 'CredentialKind',
  description: 'How a caller proved who they are.',
  valuesMap: {
    SESSION: { description: 'Signed in with a password.' },
    TOKEN: { description: 'With an API token: only within its tenant, never above its role.' },
  },
});

@ObjectType({ description: 'Who asks.' })
export class Viewer {
  @Field(() => ID, { description: 'Never changes.' })
  id: string;

  @Field(() => String, { description: 'What they sign in with.' })
  email: string;

  @Field(() => String, { description: 'Their name.' })
  name: string;

  @Field(() => Boolean, {
    description: 'Whether they run the platform; never true with an API token.',
  })
  operator: boolean;

  @Field(() => CredentialKind, { description: 'How they proved who they are.' })
  via: 'session' | 'token';
}

@InputType({ description: 'A new user.' })
export class SignUpInput {
  @Field(() => String, { description: 'What they will sign in with.' })
  email: string;

  @Field(() => String, { nullable: true, description: 'Their name; the email when absent.' })
  name?: string | null;

  @Field(() => String, { description: 'At least 10 characters.' })
  password: string;
}

@InputType({ description: 'A user and their password.' })
export class SignInInput {
  @Field(() => String, { description: 'As in signUp.' })
  email: string;

  @Field(() => String, { description: 'As in signUp.' })
  password: string;
}

@ObjectType({ description: 'A session that has just begun.' })
export class SessionPayload {
  @Field(() => String, { description: 'Send it as "Authorization: Bearer <token>".' })
  token: string;

  @Field(() => DateTime, { description: 'When it ends.' })
  expiresAt: Date;

  @Field(() => Viewer, { description: 'Who signed in.' })
  viewer: Viewer;
}
