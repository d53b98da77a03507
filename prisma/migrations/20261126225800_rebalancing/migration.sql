-- AlterTable
ALTER TABLE "Instance" ADD COLUMN     "moveAt" TIMESTAMPTZ(3),
ADD COLUMN     "moveTo" TEXT;
