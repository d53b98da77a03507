import { Args, Mutation, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import type { TenantView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Tenant } from '../tenants/tenants.models.ts';
import {
  AddMemberInput,
  Member,
  MemberConnection,
  RemoveMemberInput,
  SetMemberRoleInput,
} from './members.models.ts';

@Resolver(() => Tenant)
export class MembersResolver {
  @ResolveField(() => MemberConnection, { description: 'Who belongs to the tenant.' })
  @Requires('member.read')
  members(@OpenDoor() door: Door, @Parent() tenant: TenantView, @Args() page: PageArguments) {
    return door.run({ tenantId: tenant.id }, (tx) => tx.members.list(page));
  }

  @Mutation(() => Member, { description: 'Makes a user who has signed up a member.' })
  @Requires('member.add')
  addMember(
    @OpenDoor() door: Door,
    @Args('input', { type: () => AddMemberInput, description: 'Who, where, as what.' })
    input: AddMemberInput,
  ) {
    return door.run({ tenant: input.tenant }, (tx) => tx.members.add(input));
  }

  @Mutation(() => Member, {
    description: "Changes a member's role. A tenant never loses its last owner.",
  })
  @Requires('member.setRole')
  setMemberRole(
    @OpenDoor() door: Door,
    @Args('input', { type: () => SetMemberRoleInput, description: 'Who, where, as what.' })
    input: SetMemberRoleInput,
  ) {
    return door.run({ tenant: input.tenant }, (tx) => tx.members.setRole(input));
  }

  @Mutation(() => Boolean, {
    description:
      "Ends a membership, and the API tokens that the member made here. One's own may be ended by everybody but a tenant's last owner.",
  })
  // For others the store asks for `member.remove`.
  @Requires('member.leave')
  async removeMember(
    @OpenDoor() door: Door,
    @Args('input', { type: () => RemoveMemberInput, description: 'Who, where.' })
    input: RemoveMemberInput,
  ) {
    await door.run({ tenant: input.tenant }, (tx) => tx.members.remove(input));
    return true;
  }
}
