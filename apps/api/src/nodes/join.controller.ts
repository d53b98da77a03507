import { Body, Controller, HttpCode, Inject, Post } from '@nestjs/common';
import { invalid, joinPath, joinRequest, type JoinAnswer } from '@bulkhead/protocol';
import { Public } from '../auth/permissions.ts';
import { Fleet } from './fleet.ts';

/** Where a host with a token becomes a node. Other hosts come here through the gate. */
@Controller()
export class JoinController {
  constructor(@Inject(Fleet) private readonly fleet: Fleet) {}

  @Post(joinPath)
  @HttpCode(200)
  @Public('a host that joins has nothing to show but its token, which is good once')
  join(@Body() body: unknown): Promise<JoinAnswer> {
    const parsed = joinRequest.safeParse(body);
    // Nothing of what was sent is repeated: a token is in it.
    if (!parsed.success) throw invalid('this is no request to join that this version knows');
    return this.fleet.join(parsed.data);
  }
}
