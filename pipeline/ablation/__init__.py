"""What distillation and each augmentation rule contribute: students trained with and without them, with several seeds."""
