-- AlterEnum
ALTER TYPE "DeploymentKind" ADD VALUE 'resize';

-- AlterTable
ALTER TABLE "Instance" ADD COLUMN     "madeVersion" INTEGER,
ADD COLUMN     "outgrown" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "seenGeneration" INTEGER NOT NULL DEFAULT 0;

-- AlterTable
ALTER TABLE "Release" ADD COLUMN     "familyId" UUID;
