"""What distillation and each augmentation rule are worth: students trained with and without them, several seeds each."""
