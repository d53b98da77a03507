import { Module } from '@nestjs/common';
import { ImagesModule } from '../images/images.module.ts';
import { AppDeploymentsResolver, DeploymentFieldsResolver } from './deployment-fields.resolver.ts';
import { DeploymentProgress } from './deployment-progress.ts';
import { DeploymentsResolver } from './deployments.resolver.ts';

@Module({
  imports: [ImagesModule],
  providers: [
    DeploymentProgress,
    DeploymentsResolver,
    DeploymentFieldsResolver,
    AppDeploymentsResolver,
  ],
})
export class DeploymentsModule {}
