import { Field, InputType, ObjectType } from '@nestjs/graphql';

@ObjectType({ description: 'A word that says something of a node.' })
export class Label {
  @Field(() => String, { description: 'What it is about.' })
  name: string;

  @Field(() => String, { description: 'What it says.' })
  value: string;
}

@InputType({ description: 'A label.' })
export class NewLabelInput {
  @Field(() => String, { description: 'What it is about.' })
  name: string;

  @Field(() => String, { description: 'What it says.' })
  value: string;
}
