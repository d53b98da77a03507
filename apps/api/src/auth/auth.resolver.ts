import { Inject } from '@nestjs/common';
import { Args, Context, Mutation, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { forbidden } from '@bulkhead/protocol';
import type { Caller, Tenancy } from '@bulkhead/tenancy';
import { OpenDoor, type Door } from '../graphql/door.ts';
import type { RequestContext } from '../graphql/request-context.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { TENANCY } from '../tenancy/tenancy.module.ts';
import { Membership } from '../tenants/tenants.models.ts';
import { SessionPayload, SignInInput, SignUpInput, Viewer } from './auth.models.ts';
import { Authenticator } from './authenticator.ts';
import { Public, Requires } from './permissions.ts';
import type { SignedIn } from './strategies.ts';

@Resolver(() => Viewer)
export class AuthResolver {
  constructor(
    @Inject(SETTINGS) private readonly settings: Settings,
    @Inject(TENANCY) private readonly tenancy: Tenancy,
    @Inject(Authenticator) private readonly authenticator: Authenticator,
  ) {}

  @Query(() => Viewer, { description: 'Who asks.' })
  @Requires('signed-in')
  me(@OpenDoor() door: Door) {
    return toViewer(door.caller);
  }

  @Mutation(() => SessionPayload, { description: 'Makes a user and signs them in.' })
  @Public('nobody has an account before they made one; can be closed with SIGN_UP=closed')
  async signUp(
    @Context() request: RequestContext,
    @Args('input', { type: () => SignUpInput, description: 'The user.' }) input: SignUpInput,
  ) {
    if (!this.settings.signUpOpen) {
      throw forbidden('Sign-up is closed on this platform; ask its operators for an account');
    }
    return this.#begin(request, await this.tenancy.signUp({ ...input, address: request.address }));
  }

  @Mutation(() => SessionPayload, { description: 'Begins a session of 12 hours.' })
  @Public('this is how a caller proves who they are')
  async signIn(
    @Context() request: RequestContext,
    @Args('input', { type: () => SignInInput, description: 'The proof.' }) input: SignInInput,
  ) {
    const signedIn = await this.authenticator.signIn({ ...input, address: request.address });
    return this.#begin(request, signedIn);
  }

  @Mutation(() => Boolean, { description: 'Ends every session of the caller, this one too.' })
  @Requires('signed-in')
  async signOutEverywhere(@OpenDoor() door: Door) {
    await this.tenancy.signOutEverywhere(door.caller);
    return true;
  }

  @ResolveField(() => [Membership], {
    description: "The caller's tenants by slug; with an API token only the token's.",
  })
  @Requires('signed-in')
  memberships(@OpenDoor() door: Door) {
    return door.user((tx) => tx.tenants.memberships());
  }

  async #begin(request: RequestContext, signedIn: SignedIn) {
    request.becomeCaller(signedIn.caller);
    const session = await this.authenticator.startSession(signedIn);
    return { ...session, viewer: toViewer(signedIn.caller) };
  }
}

function toViewer({ userId, email, name, operator, via }: Caller): Viewer {
  return { id: userId, email, name, operator, via };
}
