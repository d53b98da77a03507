-- AlterEnum
ALTER TYPE "InstanceState" ADD VALUE 'paused';
ALTER TYPE "InstanceState" ADD VALUE 'crashloop';

-- AlterEnum
ALTER TYPE "RouteState" ADD VALUE 'paused';

-- AlterTable
ALTER TABLE "Instance" ADD COLUMN     "frozen" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "paused" BOOLEAN NOT NULL DEFAULT false;
